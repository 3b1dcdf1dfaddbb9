"""The contract suite for each trainable."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract_suite import BehaviourContract, TrainableContract
from recovery_suite import RecoveryContract
from safetensors.torch import load_file

from trainables.config import QAConfig
from trainables.contract import Parent, TrialContext
from trainables.data.errors import DataError
from trainables.data.spec import DataSpec
from trainables.registry import settings_of, train_function
from trainables.training.checkpoints import FINAL_WEIGHTS


class TestDistilbert(TrainableContract):
    trainable = "distilbert"
    model = {"n_layers": 1}  # noqa: RUF012
    out_of_range = [("model.n_layers", 0), ("model.n_layers", 7), ("training.learning_rate", 0), ("mixture.share", 101)]  # noqa: RUF012


class TestDistilbertWithDenseBlock(BehaviourContract):
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


class Adapters:
    trainable = "adapters"
    model = {"n_layers": 1, "num_experts": 3, "rank": 2}  # noqa: RUF012
    without_chance = {"balance_loss_coef": 0.5}  # noqa: RUF012
    out_of_range = [("model.num_experts", 0), ("model.rank", 0), ("model.method", "prefix"), ("model.balance_loss_coef", -1)]  # noqa: RUF012


class TestAdapters(Adapters, BehaviourContract):
    """What comes out of a trial."""


@pytest.mark.slow
class TestAdaptersRecovery(Adapters, RecoveryContract):
    """What a trial survives: by the same loop as the others'."""


class MoEVariants:
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


class TestMoEVariants(MoEVariants, BehaviourContract):
    """What comes out of a trial."""


@pytest.mark.slow
class TestMoEVariantsRecovery(MoEVariants, RecoveryContract):
    """What a trial survives: by the same loop as the others'."""


def trained(share: int, data: DataSpec, prepared_dir: Path, folder: Path) -> Parent:
    """A small model that was trained for a few steps."""
    config = settings_of("distilbert").config.model_validate(
        {
            "mixture": {"share": share, "size": 20},
            "model": {"n_layers": 1},
            "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "stride": 32},
            "evaluation": {"validation_examples": 2, "test_examples": 2},
        }
    )
    context = TrialContext(seed=3, data=data, device="cpu", num_threads=1, checkpoint_dir=folder, prepared_dir=prepared_dir)
    list(train_function("distilbert")(config, context))
    return Parent(key=str(share), trainable="distilbert", config=config, weights=folder / FINAL_WEIGHTS)


@pytest.fixture(scope="module")
def experts(data: DataSpec, prepared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Parent, ...]:
    """One for each domain."""
    return tuple(trained(share, data, prepared_dir, tmp_path_factory.mktemp("expert")) for share in (100, 0))


@pytest.fixture(scope="module")
def mixed(data: DataSpec, prepared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Parent, ...]:
    """One on the mixture."""
    return (trained(60, data, prepared_dir, tmp_path_factory.mktemp("mixed")),)


class TestDistilbertFromAMixedParent(BehaviourContract):
    trainable = "distilbert"
    model = {"n_layers": 1, "start_from": "mixed"}  # noqa: RUF012
    out_of_range = [("model.start_from", "scratch")]  # noqa: RUF012

    @pytest.fixture
    def parents(self, mixed: tuple[Parent, ...]) -> tuple[Parent, ...]:
        return mixed

    def test_it_begins_with_the_parents_weights(self, tiny: QAConfig, context: TrialContext) -> None:
        """At a rate at which nothing moves, its final weights are the parent's."""
        still = tiny.model_copy(update={"training": tiny.training.model_copy(update={"learning_rate": 1e-30})})
        list(self.reports(still, context))
        before, after = (load_file(path) for path in (context.parents[0].weights, context.checkpoint_dir / FINAL_WEIGHTS))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_weights_that_were_damaged_are_not_begun_from(self, tiny: QAConfig, context: TrialContext, tmp_path: Path) -> None:
        [parent] = context.parents
        damaged = bytearray(parent.weights.read_bytes())
        damaged[-1] ^= 1
        (tmp_path / "damaged.safetensors").write_bytes(damaged)
        broken = replace(context, parents=(replace(parent, weights=tmp_path / "damaged.safetensors"),))
        with pytest.raises(DataError, match=rf"weights of trial {parent.key}, .* its checksum does not match; bring it back"):
            list(self.reports(tiny, broken))


class TestGatedEnsemble(TrainableContract):
    trainable = "gated_ensemble"
    model = {"n_layers": 1, "gate_hidden": 16}  # noqa: RUF012
    out_of_range = [("model.gate_hidden", 0), ("model.reinit_k", 7), ("model.combine", "votes")]  # noqa: RUF012

    @pytest.fixture
    def parents(self, experts: tuple[Parent, ...]) -> tuple[Parent, ...]:
        return experts
