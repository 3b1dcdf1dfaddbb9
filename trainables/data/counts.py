"""What became of the rows on their way into a trial: counted, shown to the user, and refused above a stated share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainables.data.errors import DataError

__all__ = ["DomainCounts", "PartCounts", "RowCounts", "check_dropped"]


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """What became of a source's rows; read = kept + empty + no_span, and repaired and respelled are among the kept."""

    read: int
    kept: int
    empty: int  # question or context without a visible character
    no_span: int  # no answer stands in the context
    repaired: int  # a stated offset was wrong; the nearest occurrence was taken
    respelled: int  # found only in another upper or lower case; the context's spelling was taken
    dropped_example: str = ""  # one row that was dropped, in words

    @property
    def dropped(self) -> int:
        """Rows that were read and not kept."""
        return self.empty + self.no_span

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PartCounts:
    """One domain's train, validation or test part."""

    groups: int
    examples: int
    windows: int
    unlabelled: int  # examples of which no window holds the whole answer (longer than the stride, or without any token)


@dataclass(frozen=True, kw_only=True)
class DomainCounts:
    """A domain from its files to its three parts."""

    train_rows: RowCounts
    test_rows: RowCounts | None  # None: test is held out of the training rows
    group_by: str  # what "auto" came to
    dropped_overlap: int  # training rows left out because test rows hold their group
    parts: Mapping[str, PartCounts]  # by "train", "validation", "test"

    def describe(self) -> str:
        """Sizes of the three parts and what was left out, in one line."""
        sizes = ", ".join(f"{part.examples} {name}" for name, part in self.parts.items())
        files = [rows for rows in (self.train_rows, self.test_rows) if rows is not None]
        left_out = {
            "dropped": sum(rows.dropped for rows in files),
            "repaired": sum(rows.repaired for rows in files),
            "left out as overlapping": self.dropped_overlap,
        }
        said = "".join(f", {count} {what}" for what, count in left_out.items() if count)
        return f"{sizes} examples, split by {self.group_by}{said}"

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def check_dropped(counts: RowCounts, max_dropped_share: float, where: str) -> None:
    """Raises: DataError when more than `max_dropped_share` of the rows were dropped, or all of them."""
    share = counts.dropped / counts.read if counts.read else 1.0
    if share > max_dropped_share or counts.kept == 0:
        raise DataError(
            f"{counts.dropped} of {counts.read} rows of {where} are dropped ({counts.no_span} whose answer is not in the "
            f"context, {counts.empty} with an empty question or context), allowed is max_dropped_share={max_dropped_share:g}; "
            f"for example {counts.dropped_example or 'none'}; repair the rows, check `format`, or raise max_dropped_share"
        )
