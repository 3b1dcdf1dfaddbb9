"""Hydra's side of `overhead.py`, with the joblib launcher: `python overhead_hydra.py --multirun number=0,1,2 ...`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from overhead_plain import run_trial


@dataclass
class Settings:
    """What the command line sets."""

    kind: str = "no-op"
    rows: str = ""
    number: int = 0


ConfigStore.instance().store(name="settings", node=Settings)


@hydra.main(version_base=None, config_name="settings")
def main(settings: Any) -> float:
    """One trial."""
    return run_trial(settings.kind, settings.rows, settings.number)


if __name__ == "__main__":
    main()
