"""Presets: what is wrong is said before anything is spent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import PresetError
from orchestrator.preset import Resources, load_preset


@pytest.mark.parametrize("name", ["embedded", "paper"])
def test_shipped_presets_are_valid(name: str) -> None:
    preset = load_preset(name)
    assert preset.shares == (0, 20, 40, 60, 80, 100)
    assert list(preset.domains) == ["squad", "bioasq"]


def test_the_paper_preset_is_the_papers_protocol() -> None:
    preset = load_preset("paper")
    assert preset.mixture_size == 4000
    assert preset.encoder == "distilbert-base-uncased"
    assert (preset.training["epochs"], preset.training["batch_size"], preset.training["learning_rate"]) == (3, 16, 2e-5)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["mixture_sizes=5"], "unknown key mixture_sizes; did you mean mixture_size?"),
        (["training.epoch=5"], "unknown key training.epoch; did you mean training.epochs?"),
        (["model.num_expert=5"], "unknown key model.num_expert; did you mean model.num_experts?"),
        (["evaluation.nbest=5"], "did you mean evaluation.n_best?"),
        (["resources.gpus=1"], "unknown key resources.gpus"),
        (
            ["trainables=[exbrt]"],
            "gated_ensemble, moe_variants, got 'exbrt'; did you mean 'exbert'?",
        ),
        (["domains.bioasq.trian=x.csv"], "unknown key domains.bioasq.trian; did you mean domains.bioasq.train?"),
        (["domains.bioasq={trian: x.csv}"], "unknown key domains.bioasq.trian; did you mean domains.bioasq.train?"),
        (["shares=80:20"], "shares are the percent of the first domain, or group of domains; for 80:20 write 80, got '80:20'"),
        (["shares=[100, 60:40]"], "for 60:40 write 60"),
        (["shares=20/80"], "for 20/80 write 20"),
        (["search.share=80:20"], "for 80:20 write 80"),
        (["mixture_size=0"], "mixture_size: Input should be greater than or equal to 1, got 0"),
        (["orders=[sorted]"], "orders.0: Input should be 'concatenated' or 'shuffled', got 'sorted'"),
        (
            ["resources.gpus_per_trial=0.15"],
            "must be auto, a whole number, or 1/k for trials_per_gpu: k, got 0.15; "
            "the nearest are 0.1429 (resources.trials_per_gpu=7) and 0.1667 (resources.trials_per_gpu=6)",
        ),
        (["resources.gpus_per_trial=1.5"], "got 1.5; the nearest are 1 and 2"),
        (["resources.gpus_per_trial=-1"], "must be auto, a whole number, or 1/k for trials_per_gpu: k, got -1"),
        (["resources.gpus_per_trial=.inf"], "got inf"),
        (["resources.trials_per_gpu=0"], "must be auto or a whole number of trials, at least 1, got 0"),
        (["resources.trials_per_gpu=1.5"], "must be auto or a whole number of trials, at least 1, got 1.5"),
        (["resources.gpus_per_trial=0.5", "resources.trials_per_gpu=3"], "which says it once more; leave gpus_per_trial out"),
        (
            ["resources.gpus_per_trial=2", "resources.trials_per_gpu=3"],
            "gpus_per_trial must be auto or 1; leave one of the two",
        ),
        (["training.epochs"], "--set takes key=value"),
        (["training.epochs=[1"], "the value is not YAML"),
        (
            ["domains.third={train: x.json}"],
            "needs exactly two domains, got 3: squad, bioasq, third; put more of them into two groups",
        ),
    ],
)
def test_a_wrong_override_is_refused_with_what_is_allowed(overrides: list[str], complaint: str) -> None:
    with pytest.raises(PresetError) as raised:
        load_preset("embedded", overrides)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("given", "gpus", "sharing"),
    [
        (["gpus_per_trial=auto"], "auto", 1),
        (["gpus_per_trial=0"], 0, 1),
        (["gpus_per_trial=2"], 2, 1),
        (["gpus_per_trial=1.0"], 1, 1),  # as earlier versions wrote it into sweep.json
        (["gpus_per_trial=0.5"], 1, 2),
        (["gpus_per_trial=0.3333333333"], 1, 3),
        (["gpus_per_trial=0.333"], 1, 3),
        (["gpus_per_trial=auto", "trials_per_gpu=4"], "auto", 4),
        (["gpus_per_trial=0.25", "trials_per_gpu=4"], 1, 4),
        (["gpus_per_trial=auto", "trials_per_gpu=auto"], "auto", "auto"),
        (["gpus_per_trial=0", "trials_per_gpu=auto"], 0, "auto"),
    ],
)
def test_sharing_a_gpu_is_kept_in_one_place_however_it_is_said(given: list[str], gpus: object, sharing: object) -> None:
    resources = load_preset("embedded", [f"resources.{each}" for each in given]).resources
    assert (resources.gpus_per_trial, resources.trials_per_gpu) == (gpus, sharing)
    assert Resources.model_validate_json(resources.model_dump_json()) == resources


def test_an_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(
        PresetError,
        match="adapters, embedded, gated_ensemble, moe_variants, paper, robustqa, staged or a YAML file, got 'papr'; "
        "did you mean paper",
    ):
        load_preset("papr")


def test_a_folder_is_no_preset(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=f"got '{tmp_path}', which is a folder; name a file in it"):
        load_preset(str(tmp_path))


def test_a_share_in_a_file_is_no_number_to_base_60(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("encoder: embedded\ndomains: {squad: embedded, bioasq: embedded}\nshares: [80:20]\n")
    with pytest.raises(PresetError, match="for 80:20 write 80"):
        load_preset(str(tmp_path / "mine.yaml"))


def test_files_named_in_a_preset_are_looked_for_beside_it(tmp_path: Path, preset_file: Callable[..., Path]) -> None:
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    path = preset_file(domains={"squad": {"train": "mine.json", "test": "absent.json"}, "bioasq": "embedded"})
    squad = load_preset(str(path)).domains["squad"]
    assert squad.train == str(tmp_path / "mine.json")
    assert squad.test == str(tmp_path / "absent.json")


def test_seeds_are_counted_from_zero() -> None:
    assert load_preset("embedded", num_seeds=3).seeds == (0, 1, 2)


def test_one_value_is_a_list_of_one() -> None:
    preset = load_preset("embedded", ["trainables=distilbert", "shares=40"])
    assert (preset.trainables, preset.shares) == (("distilbert",), (40,))
