"""The report's last section: what the trials ran on, and the commands that run them and write this page again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from results.report_frame import Section, Subject

__all__ = ["provenance_section"]

_PRESET_FILE = "preset.yaml"
_RUN_KINDS = ("grid", "search")


def provenance_section(subject: Subject) -> Section:
    """Always there; what the ledger does not know is said to be unknown."""
    rows = subject.ledger.sql(_ORIGINS).to_pylist()
    versions: dict[str, set[str]] = {}
    for row in rows:
        for package, version in json.loads(row["versions"] or "{}").items():
            versions.setdefault(package, set()).add(str(version))
    facts = {
        "sweeps": subject.sweep_ids,
        "commit": _known(rows, "git_commit"),
        "code": _known(rows, "code_hash"),
        "data": tuple(subject.ledger.sql(_FINGERPRINTS).column(0).to_pylist()),
        "hosts": _known(rows, "host"),
        "devices": _known(rows, "device"),
    }
    values = {
        "facts": {name: ", ".join(found) or "unknown" for name, found in facts.items()},
        "versions": {package: ", ".join(sorted(found)) for package, found in sorted(versions.items())},
        "recipes": [_recipe(subject, sweep_id, facts["commit"]) for sweep_id in subject.sweep_ids],
        "again": _again(subject),
        "preset_file": _PRESET_FILE,
    }
    return Section(name="provenance", title="Provenance", values=values)


_ORIGINS = "SELECT DISTINCT git_commit, code_hash, host, device, versions FROM attempts"
_FINGERPRINTS = "SELECT DISTINCT data_fingerprint FROM plans WHERE data_fingerprint IS NOT NULL ORDER BY ALL"


def _known(rows: list[dict[str, Any]], column: str) -> tuple[str, ...]:
    return tuple(sorted({row[column] for row in rows if row[column]}))


def _again(subject: Subject) -> str:
    words = ["python", "-m", "results", "report", "--storage", subject.ledger.storage.shown]
    return shlex.join(words)


def _recipe(subject: Subject, sweep_id: str, commits: tuple[str, ...]) -> dict[str, str]:
    """The commands that run the sweep again, and the preset file they need: the settings as its plan froze them."""
    storage = subject.ledger.storage
    checkout = [f"git checkout {commits[0].removesuffix('+dirty')}"] if len(commits) == 1 else []
    try:
        plan = json.loads(storage.read(storage.path(f"sweeps/{sweep_id}/sweep.json")).to_pybytes())
        kind, preset = plan["kind"], dict(plan["preset"])
    except (OSError, ValueError, KeyError, TypeError):
        return {"sweep_id": sweep_id, "command": "", "preset": ""}
    preset.pop("name", None)
    overrides = [f"--set {shlex.quote(each)}" for each in _dotted(preset.pop("overrides", None) or {})]
    if kind == "search":
        preset["search"] = plan.get("search", {}).get("settings", preset.get("search"))
    if kind not in _RUN_KINDS or any(":searched" in name for name in preset.get("trainables", ())):
        return {"sweep_id": sweep_id, "command": "", "preset": ""}
    command = " ".join([f"python -m orchestrator.run {kind} --preset {_PRESET_FILE}", *overrides])
    text = yaml.safe_dump(preset, sort_keys=False, allow_unicode=True, width=120)
    return {"sweep_id": sweep_id, "command": "\n".join([*checkout, command]), "preset": text}


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Nested settings as `--set` takes them."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={json.dumps(value)}"
