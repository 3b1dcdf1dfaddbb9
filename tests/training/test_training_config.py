"""Settings as they are recorded: those added later leave no trace in the trials that came before them."""

from pathlib import Path
from typing import Any

import pytest

from results.identity import trial_key
from trainables.config import ADDED_LATER
from trainables.data.errors import DataError
from trainables.data.spec import DataSpec
from trainables.registry import names, settings_of
from trainables.training.preparation import prepare_all

KEYS = {"distilbert": "b08a4ae299b84695", "exbert": "7372f770e11d8916"}
"""Of the default configurations with no data and seed 0, of version 1, computed at 64ddb44, before any setting was added."""


@pytest.mark.parametrize("trainable", KEYS)
def test_a_default_configuration_keeps_the_key_that_it_always_had(trainable: str) -> None:
    config = settings_of(trainable).config()
    assert trial_key(trainable, 1, config.resolved(), "0" * 64, 0, ()) == KEYS[trainable]


@pytest.mark.parametrize(("name", "value"), ADDED_LATER.items())
def test_a_setting_added_later_has_the_value_that_was_in_force_before(name: str, value: Any) -> None:
    section, setting = name.split(".")
    sections = [getattr(settings_of(trainable).config(), section).model_dump(mode="json") for trainable in names()]
    having = [each for each in sections if setting in each]
    assert having
    assert [each[setting] for each in having] == [value] * len(having)


def test_a_setting_added_later_is_recorded_where_it_has_another_value() -> None:
    config = settings_of("exbert").config.model_validate({"evaluation": {"validate_at": "report"}})
    assert config.resolved()["evaluation"]["validate_at"] == "report"
    assert "validate_at" not in type(config)().resolved()["evaluation"]


@pytest.mark.parametrize(
    ("trainable", "model"),
    [
        ("exbert", {"moe_position": "after_block", "moe_block": 4}),
        ("moe_variants", {"num_blocks": 4}),
        ("distilbert", {"reinit_k": 4}),
        ("gated_ensemble", {"reinit_k": 5}),
    ],
)
def test_settings_that_need_more_blocks_than_the_encoder_has_are_refused_before_anything_is_prepared(
    trainable: str, model: dict[str, Any], data: DataSpec, tmp_path: Path
) -> None:
    config = settings_of(trainable).config.model_validate({"model": model})
    with pytest.raises(DataError, match=r"ask for at least \d blocks .*, and 3 are kept of"):
        list(prepare_all([(config, data)], tmp_path / "prepared"))
    assert not (tmp_path / "prepared").exists()
