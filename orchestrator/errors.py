"""What can go wrong with a sweep, as a tree that callers can act on.

SweepError
├── PresetError          the preset or an override is wrong
├── PlanError            the trials asked for cannot be planned
├── SweepLockedError     another driver is running this sweep
└── InfeasibleError      no node can give what a trial asks for
"""

from __future__ import annotations

__all__ = ["InfeasibleError", "PlanError", "PresetError", "SweepError", "SweepLockedError"]


class SweepError(Exception):
    """A sweep cannot go on; the message says what was given, what is allowed and what to do next."""


class PresetError(SweepError, ValueError):
    """The preset or an override is wrong."""


class PlanError(SweepError, ValueError):
    """The trials asked for cannot be planned."""


class SweepLockedError(SweepError):
    """Another driver is running this sweep."""


class InfeasibleError(SweepError, ValueError):
    """No node can give what a trial asks for."""
