"""The contract suite for each trainable."""

from contract_suite import TrainableContract


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
