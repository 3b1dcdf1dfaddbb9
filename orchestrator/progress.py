"""What a person sees while a sweep runs: one live table on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.trial import Trial

__all__ = ["LiveProgress", "PlainProgress", "TrialState", "progress_for", "render"]

_ROWS_SHOWN = 30
_STYLES = {"running": "cyan", "completed": "green", "stopped": "yellow", "failed": "red", "lost": "red", "planned": "dim"}
_ENDED = ("completed", "stopped", "failed", "lost")


@dataclass
class TrialState:
    """How one trial stands, as far as the driver has heard."""

    trial: Trial
    status: str = "planned"
    attempts: int = 0
    epoch: float = 0.0
    val_qa_loss: float | None = None
    em: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    began_at: float | None = None


class PlainProgress:
    """A line for each start, each validation, and each end. Also the state that the live table draws."""

    def __init__(
        self, trials: Sequence[Trial], total: int, slots: int, gpus: float, console: Console, clock: Callable[[], float]
    ) -> None:
        """`total`: trials to run, of which `trials` are known now."""
        self.states = {trial.key: TrialState(trial) for trial in trials}
        self._done: set[str] = set()
        self.total = total
        self.slots = max(1, slots)
        self.gpus = gpus
        self.console = console
        self.clock = clock
        self.began_at = clock()

    def __enter__(self) -> PlainProgress:
        self.say(f"{self.total} trials to run, {self.slots} at a time")
        return self

    def __exit__(self, *_: object) -> None:
        self.say(footer(self))

    def say(self, line: str) -> None:
        """Prints one line as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def planned(self, trial: Trial) -> None:
        self.states.setdefault(trial.key, TrialState(trial))

    def started(self, trial_key: str) -> None:
        state = self._now(trial_key, "running")
        state.attempts, state.began_at = state.attempts + 1, self.clock()
        again = f" (attempt {state.attempts})" if state.attempts > 1 else ""
        self.line(state, f"started{again} {state.trial.detail}".rstrip())

    def reported(self, trial_key: str, shown: dict[str, Any]) -> None:
        state = self.states[trial_key]
        state.epoch = shown["epoch"]
        state.seconds = self.clock() - (state.began_at or self.clock())
        for note in shown["notes"]:
            self.say(f"{trial_key}: {note}")
        if shown["val_qa_loss"] is not None:
            state.val_qa_loss = shown["val_qa_loss"]
            state.em = {name.removeprefix("em_"): value for name, value in shown.items() if name.startswith("em_")}
            self.line(state, f"epoch {state.epoch:g}  {describe_scores(state)}")

    def retrying(self, trial_key: str, what: str) -> None:
        self.line(self._now(trial_key, "planned"), f"{what}; trying again")

    def ended(self, trial_key: str, status: str, what: str) -> None:
        state = self._now(trial_key, status)
        if status == "planned":  # it was handed out while the run was stopping
            return
        state.seconds = self.clock() - (state.began_at or self.clock())
        self.line(state, f"{status} in {state.seconds:.0f} s  {what or describe_scores(state)}")

    def _now(self, trial_key: str, status: str) -> TrialState:
        """The trial's state from now on; with each line, counting those that are done would take as long as all the rest."""
        if status in ("completed", "stopped", "failed"):
            self._done.add(trial_key)
        else:
            self._done.discard(trial_key)
        self.states[trial_key].status = status
        return self.states[trial_key]

    def line(self, state: TrialState, what: str) -> None:
        """Says one thing about one trial."""
        self.say(f"[{len(self._done)}/{max(self.total, len(self.states))}] {state.trial.key} {state.trial.summary}: {what}")


class LiveProgress(PlainProgress):
    """The same, drawn as one table that stays in place."""

    def __enter__(self) -> LiveProgress:
        self._live = Live(get_renderable=lambda: render(self), console=self.console, refresh_per_second=2)
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.__exit__(*exception)

    def line(self, state: TrialState, what: str) -> None:
        """Only failures scroll by; the rest is in the table."""
        if "trying again" in what or state.status in ("failed", "lost"):
            super().line(state, what)


def progress_for(console: Console) -> type[PlainProgress]:
    """The live table on a terminal, plain lines elsewhere."""
    return LiveProgress if console.is_terminal else PlainProgress


def render(progress: PlainProgress) -> Group:
    """The live table: running and ended trials first, then as many planned ones as fit; and the footer."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    domains = next((list(state.em) for state in progress.states.values() if state.em), [])
    for heading in ("key", "trial", "status", "epoch", "val loss", f"EM {'/'.join(domains)}".strip(), "elapsed", "to go"):
        # On a narrow terminal names give way, never numbers.
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=None if heading in ("key", "trial") else 6)
    order = {status: place for place, status in enumerate(("running", "failed", "lost", "stopped", "completed", "planned"))}
    states = sorted(progress.states.values(), key=lambda state: order[state.status])
    best = min((s.val_qa_loss for s in states if s.val_qa_loss is not None), default=None)
    for state in states[:_ROWS_SHOWN]:
        loss = "" if state.val_qa_loss is None else f"{state.val_qa_loss:.3f}" + ("*" if state.val_qa_loss == best else "")
        running = state.status == "running" and state.began_at is not None
        seconds = progress.clock() - state.began_at if running and state.began_at else state.seconds
        table.add_row(
            state.trial.key[:8],
            f"{state.trial.summary} {state.trial.detail}".rstrip(),
            Text(state.status, style=_STYLES[state.status]),
            f"{state.epoch:g}/{state.trial.config.training.epochs}" if state.epoch else "",
            loss,
            "/".join(f"{em:.1f}" for em in state.em.values()),
            duration(seconds) if seconds else "",
            duration(seconds * (state.trial.config.training.epochs / state.epoch - 1)) if running and state.epoch else "",
        )
    hidden = len(states) - _ROWS_SHOWN
    more = [Text(f"... and {hidden} more", style="dim")] if hidden > 0 else []
    return Group(table, *more, Text(footer(progress), style="bold"))


def footer(progress: PlainProgress) -> str:
    """Counts by status, elapsed time, time to go at the pace so far, and GPU-hours used."""
    counts = Counter(state.status for state in progress.states.values())
    elapsed = progress.clock() - progress.began_at
    ended = [state for state in progress.states.values() if state.status in _ENDED]
    left = max(progress.total, len(progress.states)) - len(ended)
    to_go = f", about {duration(elapsed / len(ended) * left)} to go" if ended and left else ""
    shown = ", ".join(f"{counts[status]} {status}" for status in (*_ENDED, "running", "planned") if counts[status])
    used = f", {sum(s.seconds for s in progress.states.values()) * progress.gpus / 3600:.2f} GPU-hours" if progress.gpus else ""
    return f"{shown}; {duration(elapsed)}{to_go}{used}"


def describe_scores(state: TrialState) -> str:
    """The last validation in a few words."""
    if state.val_qa_loss is None:
        return ""
    return f"val loss {state.val_qa_loss:.3f}  EM " + "  ".join(f"{domain} {em:.1f}" for domain, em in state.em.items())


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
