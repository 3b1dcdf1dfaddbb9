"""Every number of the paper on gated ensembles that is set beside ours, with the table it stands in.

Source: "Sesame Street Ensemble" (a CS224N project; document B of the digest), Tables 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENSEMBLE_ROWS", "EnsembleRow"]


@dataclass(frozen=True, kw_only=True)
class EnsembleRow:
    """One row of document B's Tables 1 and 2, and which trials of ours stand beside it. EM and F1 in percent."""

    title: str
    is_ensemble: bool
    reinit_k: int
    more_epochs: int
    """Than the baseline, which has three."""
    dev: tuple[float, float]
    """EM, F1 out of domain, Table 1."""
    test: tuple[float, float] | None
    """Table 2; None where it has no such row."""


ENSEMBLE_ROWS = (
    EnsembleRow(title="baseline", is_ensemble=False, reinit_k=0, more_epochs=0, dev=(33.246, 48.432), test=(40.275, 59.187)),
    EnsembleRow(
        title="gated ensemble", is_ensemble=True, reinit_k=0, more_epochs=0, dev=(31.952, 47.129), test=(39.768, 58.768)
    ),
    EnsembleRow(title="4 epochs", is_ensemble=False, reinit_k=0, more_epochs=1, dev=(33.246, 48.432), test=None),
    EnsembleRow(title="4 blocks drawn again", is_ensemble=False, reinit_k=4, more_epochs=0, dev=(31.475, 47.055), test=None),
    EnsembleRow(
        title="gated ensemble of experts with 4 blocks drawn again",
        is_ensemble=True,
        reinit_k=4,
        more_epochs=0,
        dev=(33.034, 47.248),
        test=(40.013, 58.781),
    ),
)
