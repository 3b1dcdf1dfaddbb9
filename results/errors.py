"""What can go wrong with a ledger, as errors a caller can act on.

LedgerError                 the base: one line naming what is wrong and the next step
├── LedgerMissingError      nothing was ever written at this storage
├── NewerSchemaError        a part was written by a later version of this package
├── PackageMissingError     an export needs a package that is not installed
│   └── OptunaMissingError  ... or a figure, of Optuna
└── QueryError              a statement was refused or does not fit the tables
LedgerWarning               a part was skipped; the answer is complete but for it
"""

from __future__ import annotations

__all__ = [
    "LedgerError",
    "LedgerMissingError",
    "LedgerWarning",
    "NewerSchemaError",
    "OptunaMissingError",
    "PackageMissingError",
    "QueryError",
]


class LedgerError(Exception):
    """The ledger cannot answer; the message says why and what to do."""


class LedgerMissingError(LedgerError):
    """No ledger exists at the storage."""


class NewerSchemaError(LedgerError):
    """A part has a schema version above this package's."""


class PackageMissingError(LedgerError):
    """A package of the extra `export` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"this needs {package}, which is not installed here: pip install 'expert-sweeps[export]'")


class OptunaMissingError(PackageMissingError):
    """Optuna is not installed."""


class QueryError(LedgerError):
    """A statement was refused, or names something that the ledger does not have."""


class LedgerWarning(UserWarning):
    """A part could not be read and was skipped."""
