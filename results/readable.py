"""Numbers of statistics as people read them: a value with its interval, a p."""

from __future__ import annotations

import math

__all__ = ["interval_text", "p_text", "significant_text"]

_LEAST_P = 0.001
_DIGITS = 3


def interval_text(value: float | None, low: float | None, high: float | None, *, signed: bool = True) -> str:
    """`+1.2 [-0.3, +2.7]`, with two digits more below one; without an interval the value alone, "" without a value.

    Levels, which are no differences, go without signs.
    """
    if value is None:
        return ""
    largest = max(abs(bound) for bound in (value, low, high) if bound is not None)
    form = ("+" if signed else "") + ("z.1f" if largest >= 1 else "z.3f")
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def p_text(p: float | None) -> str:
    """Three digits; `< 0.001` below that, "" without one."""
    if p is None:
        return ""
    return f"{p:.3f}" if p >= _LEAST_P else f"< {_LEAST_P}"


def significant_text(value: float | None) -> str:
    """Three significant digits without an exponent, whole numbers in full: 0.0000579, 12.3, 1,235; "" without one."""
    if value is None:
        return ""
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, decimals)}f}"
