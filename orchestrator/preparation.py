"""The data of a sweep's trials, built and checked before any of them begins, beside the start of what will run them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from orchestrator.errors import SweepError
from orchestrator.node_files import node_files
from orchestrator.trial import Trial
from results.storage import StorageLike
from trainables.config import QAConfig
from trainables.data.errors import DataError
from trainables.data.prepared import prepared_names
from trainables.data.spec import DataSpec

__all__ = ["Prepared", "preparation"]

Asked = Sequence[tuple[QAConfig, DataSpec]]

_SECONDS_TO_END = 5.0


class Prepared(Protocol):
    """`preparation` of what a run is about to begin: all that is left to say is whether it may take a process of its own."""

    def __call__(self, *, beside: bool) -> AbstractContextManager[Callable[[], None]]: ...


@contextmanager
def preparation(
    todo: Sequence[Trial], storage: StorageLike, say: Callable[[str], None], then: Callable[[], None], *, beside: bool
) -> Iterator[Callable[[], None]]:
    """Has the data built that the trials read, and gives what waits until it is there: call it before they begin.

    With `beside`, where there is something to build, a process of its own does it from now on, which also keeps tokenizers and
    torch out of this one; else it is done when it is waited for. `say` hears what data there is; `then` is called when it is
    there.

    Raises (also what waits):
        DataError: rows that cannot be used, fewer than a mixture needs, or an encoder that does not fit the settings.
        SweepError: the final weights of a trial that others begin from are missing, or the process was killed.
    """
    files = node_files(storage)
    ours = {trial.key for trial in todo}
    for key in {key for trial in todo for key in trial.parent_keys} - ours:
        files.check_final_weights(key)
    asked = _different(todo)
    for data in {data.model_dump_json(): data for _, data in asked}.values():
        files.publish(data)
    trials = [(config, files.local(data)) for config, data in asked]

    def wait(lines: Iterable[str]) -> None:
        for line in lines:
            say(line)
        for config, data in trials:
            files.publish_prepared(config, data)
        then()

    if beside and not _is_built(trials, files.prepared_dir):
        with _child(trials, files.prepared_dir) as answers:
            yield lambda: wait(answers)
    else:
        yield lambda: wait(_prepared(trials, files.prepared_dir))


def _different(todo: Sequence[Trial]) -> Asked:
    """What the trials ask for, once each: seeds ask for the same, and there may be thousands of them."""
    each = {(id(trial.config), id(trial.data)): (trial.config, trial.data) for trial in todo}
    different = {(config.model_dump_json(), data.model_dump_json()): (config, data) for config, data in each.values()}
    return list(different.values())


def _is_built(trials: Asked, folder: Path) -> bool:
    shapes = {(data.model_dump_json(), config.training.max_length, config.training.stride): data for config, data in trials}
    return all(
        (folder / name).is_dir()
        for (_, max_length, stride), data in shapes.items()
        for name in prepared_names(data, max_length=max_length, stride=stride)
    )


def _prepared(trials: Asked, folder: Path) -> Iterator[str]:
    """Builds what is missing, and what there is to say of it."""
    from trainables.training.preparation import prepare_all  # brings the tokenizers, where something is to be built

    yield from prepare_all(trials, folder)


@contextmanager
def _child(trials: Asked, folder: Path) -> Iterator[Iterator[str]]:
    """What a process that prepares has to say, as it says it. The process ends with the context, or with this one."""
    spawned = multiprocessing.get_context("spawn")
    answers, sender = spawned.Pipe(duplex=False)
    process = spawned.Process(target=_prepare_apart, args=(trials, folder, sender), daemon=True)
    process.start()
    sender.close()
    try:
        yield _heard(answers, process)
    finally:
        process.terminate()  # where something went wrong it may be at work still
        process.join(_SECONDS_TO_END)
        process.kill()
        process.join()
        answers.close()


def _prepare_apart(trials: Asked, folder: Path, sender: Connection) -> None:
    """Sends lines, then an error or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears Ctrl-C too, and ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # what is half built is removed
    _end_with_driver()
    try:
        for line in _prepared(trials, folder):
            sender.send(line)
        sender.send(None)
    except (DataError, SweepError, OSError) as error:
        sender.send(error)
    except Exception:  # which may not be sent as it is, and would lose its traceback
        sender.send(SweepError(f"preparing the data failed:\n{traceback.format_exc()}"))


def _end_with_driver() -> None:
    """Has this process end when the driver that started it is gone, also where it was killed."""
    driver = multiprocessing.parent_process()
    assert driver is not None

    def watch() -> None:
        wait_for([driver.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _heard(answers: Connection, process: BaseProcess) -> Iterator[str]:
    """Lines, until the process says that it is done. Raises what it sends, or SweepError where it ends without a word."""
    while True:
        try:
            answer = answers.recv()
        except EOFError as error:
            process.join(_SECONDS_TO_END)
            raise SweepError(
                f"the process that prepares the data ended with {process.exitcode} (-9: killed, perhaps out of memory); "
                "run the same command again"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return
        yield answer
