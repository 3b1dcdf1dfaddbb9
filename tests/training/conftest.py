"""The embedded corpora, prepared once for all training tests, and how these use the machine."""

from pathlib import Path

import pytest
import torch

from trainables.data.spec import DataSpec, DomainSpec
from trainables.embedded import ENCODER_PATH, corpora_in


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small are no faster on more, and far slower beside other work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    """The embedded encoder and corpora."""
    files = corpora_in(tmp_path_factory.mktemp("corpora"))
    domains = {
        name: DomainSpec(train=str(files[f"{name}_train"]), test=str(files[f"{name}_test"])) for name in ("squad", "bioasq")
    }
    return DataSpec(encoder=str(ENCODER_PATH), domains=domains)


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where their features are built."""
    return tmp_path_factory.mktemp("prepared")
