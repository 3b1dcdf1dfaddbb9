"""What can go wrong with a sweep, as a tree that callers can act on.

SweepError
├── PresetError          the preset or an override is wrong
├── PlanError            the trials asked for cannot be planned
├── SweepLockedError     another driver is running this sweep
├── LeaseLostError       another process has taken over what this one was doing
├── TrialTimeoutError    a trial has not reported for too long
├── InfeasibleError      no node can give what a trial asks for
└── StorageError         the storage cannot be written, and has not been for as long as we were told to wait
"""

from __future__ import annotations

__all__ = [
    "InfeasibleError",
    "LeaseLostError",
    "PlanError",
    "PresetError",
    "StorageError",
    "SweepError",
    "SweepLockedError",
    "TrialTimeoutError",
]


class SweepError(Exception):
    """A sweep cannot go on; the message says what was given, what is allowed and what to do next."""


class PresetError(SweepError, ValueError):
    """The preset or an override is wrong."""


class PlanError(SweepError, ValueError):
    """The trials asked for cannot be planned."""


class SweepLockedError(SweepError):
    """Another driver is running this sweep."""


class LeaseLostError(SweepError):
    """Another process has taken over what this one was doing."""


class TrialTimeoutError(SweepError):
    """A trial has not reported for `recovery.timeout_seconds`."""


class InfeasibleError(SweepError, ValueError):
    """No node can give what a trial asks for."""


class StorageError(SweepError, OSError):
    """The storage cannot be written."""
