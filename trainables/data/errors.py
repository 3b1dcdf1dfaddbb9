"""The one error of this package that a user can act on."""

__all__ = ["DataError"]


class DataError(ValueError):
    """Data that cannot be used as asked: missing, unreadable, leaking between splits, or too small. Says what to do next."""
