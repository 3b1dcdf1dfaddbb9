"""The data of trials, built and checked before any of them begins.

Imports no model: whoever prepares does not train.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trainables.config import QAConfig
from trainables.data.counts import DomainCounts
from trainables.data.errors import DataError
from trainables.data.prepared import PreparedData, open_prepared
from trainables.data.spec import DataSpec
from trainables.models.encoder_config import encoder_config

__all__ = ["prepare_all", "prepared_for"]


def prepared_for(config: QAConfig, data: DataSpec, prepared_dir: Path) -> PreparedData:
    """The data that a trial reads, its features built first where they are missing.

    Raises:
        DataError: rows that cannot be used.
    """
    return open_prepared(
        data,
        config.mixture,
        max_length=config.training.max_length,
        stride=config.training.stride,
        prepared_dir=prepared_dir,
        validation_examples=config.evaluation.validation_examples,
        test_examples=config.evaluation.test_examples,
    )


def prepare_all(trials: Iterable[tuple[QAConfig, DataSpec]], prepared_dir: Path) -> Iterator[str]:
    """Builds the features of all trials, checks that each can have what it asks for, and says what there is, line by line.

    Raises:
        DataError: rows that cannot be used, fewer than a mixture needs, or an encoder that does not fit the settings.
    """
    opened: dict[str, Mapping[str, DomainCounts]] = {}
    checked = set()
    for config, data in trials:
        if (asked := (config.model, config.training.max_length, data.encoder)) not in checked:
            _check_encoder(config, data.encoder)
            checked.add(asked)
        parts = (config.mixture, config.training, config.evaluation, data)
        what = "".join(part.model_dump_json() for part in parts)
        if what not in opened:
            prepared = prepared_for(config, data, prepared_dir)
            prepared.training_windows(config.mixture)
            opened[what] = {name: domain.counts for name, domain in prepared.domains.items()}
    lines = (f"{name}: {domain.describe()}" for counts in opened.values() for name, domain in counts.items())
    yield from dict.fromkeys(lines)


def _check_encoder(config: QAConfig, encoder: str) -> None:
    folder = Path(encoder)
    if folder.is_dir() and not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        raise DataError(
            f"an encoder folder holds weights (*.safetensors or *.bin), got {folder} without any; name another folder"
        )
    n_layers = getattr(config.model, "n_layers", None)
    of_encoder = encoder_config(encoder, n_layers)
    if config.training.max_length > of_encoder.max_position_embeddings:
        raise DataError(
            f"training.max_length must be at most {of_encoder.max_position_embeddings}, the positions of {encoder}, "
            f"got {config.training.max_length}"
        )
    least = config.model.least_blocks
    if least > of_encoder.n_layers:
        raise DataError(
            f"the model's settings ask for at least {least} blocks ({config.model}), and {of_encoder.n_layers} are kept of "
            f"{encoder}; name blocks that there are, or an encoder with more"
        )
