"""The contract suite for each trainable."""

from pathlib import Path

import pytest
from contract_suite import TrainableContract

from trainables.contract import Parent, TrialContext
from trainables.data.spec import DataSpec
from trainables.registry import settings_of, train_function
from trainables.training.checkpoints import FINAL_WEIGHTS


class TestDistilbert(TrainableContract):
    trainable = "distilbert"
    model = {"n_layers": 1}  # noqa: RUF012
    out_of_range = [("model.n_layers", 0), ("model.n_layers", 7), ("training.learning_rate", 0), ("mixture.share", 101)]  # noqa: RUF012


class TestDistilbertWithDenseBlock(TrainableContract):
    trainable = "distilbert"
    model = {"n_layers": 1, "dense_block": True}  # noqa: RUF012
    out_of_range = [("model.n_layers", 0), ("training.warmup_share", 1.1)]  # noqa: RUF012


class TestExbert(TrainableContract):
    trainable = "exbert"
    model = {"n_layers": 1, "num_experts": 4, "dropout_placement": "both"}  # noqa: RUF012
    without_chance = {"dropout_placement": "none", "threshold": 1e-9, "router_z_loss_coef": 0.5, "balance_loss_coef": 0.5}  # noqa: RUF012
    out_of_range = [  # noqa: RUF012
        ("model.num_experts", 1),
        ("model.moe_dropout", 1.0),
        ("model.expert_dropout", 1.0),
        ("model.threshold", 0),
        ("training.epochs", 0),
        ("evaluation.n_best", 0),
    ]


class TestAdapters(TrainableContract):
    trainable = "adapters"
    model = {"n_layers": 1, "num_experts": 3, "rank": 2}  # noqa: RUF012
    without_chance = {"balance_loss_coef": 0.5}  # noqa: RUF012
    out_of_range = [("model.num_experts", 0), ("model.rank", 0), ("model.method", "prefix"), ("model.balance_loss_coef", -1)]  # noqa: RUF012


class TestMoEVariants(TrainableContract):
    trainable = "moe_variants"
    model = {  # noqa: RUF012
        "n_layers": 2,
        "num_experts": 4,
        "router": "switch_top1",
        "expert_init": "upcycled_noise",
        "expert_noise": 0.1,
    }
    without_chance = {"balance_loss_coef": 0.5, "router_z_loss_coef": 0.5}  # noqa: RUF012
    out_of_range = [  # noqa: RUF012
        ("model.num_experts", 1),
        ("model.num_blocks", 3),
        ("model.router", "top3"),
        ("model.capacity_factor", 0),
    ]


@pytest.fixture(scope="module")
def experts(data: DataSpec, prepared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Parent, ...]:
    """Two small models that were trained for a few steps, on one domain each."""
    found = []
    for share in (100, 0):
        config = settings_of("distilbert").config.model_validate(
            {
                "mixture": {"share": share, "size": 20},
                "model": {"n_layers": 1},
                "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "stride": 32},
                "evaluation": {"validation_examples": 2, "test_examples": 2},
            }
        )
        folder = tmp_path_factory.mktemp("expert")
        context = TrialContext(seed=3, data=data, device="cpu", num_threads=1, checkpoint_dir=folder, prepared_dir=prepared_dir)
        list(train_function("distilbert")(config, context))
        found.append(Parent(key=str(share), trainable="distilbert", config=config, weights=folder / FINAL_WEIGHTS))
    return tuple(found)


class TestGatedEnsemble(TrainableContract):
    trainable = "gated_ensemble"
    model = {"n_layers": 1, "gate_hidden": 16}  # noqa: RUF012
    out_of_range = [("model.gate_hidden", 0), ("model.reinit_k", 7), ("model.combine", "votes")]  # noqa: RUF012

    @pytest.fixture
    def parents(self, experts: tuple[Parent, ...]) -> tuple[Parent, ...]:
        return experts
