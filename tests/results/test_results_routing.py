"""Routing: the formulas against their limits, a second implementation and published values; tables and figures of a ledger."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_ledger import DOMAINS, exact_match, synthetic_ledger, trial_key
from typer.testing import CliRunner

from results.__main__ import app
from results.charts import encode_chart
from results.errors import QueryError
from results.figures import draw_figure
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.routing import (
    LayerLoad,
    coefficient_of_variation,
    divergences,
    entropy,
    jensen_shannon,
    load_routing,
    routing_table,
)

EVEN = (0.25, 0.25, 0.25, 0.25)
ONE = (1.0, 0.0, 0.0, 0.0)


def _shares(num_experts: int) -> st.SearchStrategy[tuple[float, ...]]:
    """Shares as the trainables count them: whole assignments over their sum."""
    counts = st.lists(st.integers(0, 10_000), min_size=num_experts, max_size=num_experts).filter(any)
    return counts.map(lambda values: tuple(value / sum(values) for value in values))


DISTRIBUTIONS = st.integers(1, 16).flatmap(lambda n: st.lists(_shares(n), min_size=2, max_size=4))


def _load(load: Sequence[float], **changed: Any) -> LayerLoad:
    ids = {"trial_key": "k", "split": "val", "step": 10, "epoch": 1.0, "layer": 0, "domain": "squad"}
    shares = {"load": tuple(load), "gate": tuple(load), "dropped": (0.0,) * len(load)}
    return LayerLoad(**{**ids, **shares, **changed})


def test_even_load_has_the_largest_entropy_and_no_variation() -> None:
    assert entropy(EVEN) == pytest.approx(math.log(4))
    assert coefficient_of_variation(EVEN) == 0.0
    assert _load(EVEN).normalised_entropy == pytest.approx(1.0)
    assert _load(EVEN).balance == pytest.approx(1.0)
    assert _load(EVEN).num_dead == 0


def test_single_used_expert_has_no_entropy_and_the_largest_variation() -> None:
    assert entropy(ONE) == 0.0
    assert coefficient_of_variation(ONE) == pytest.approx(math.sqrt(3))
    assert _load(ONE).normalised_entropy == 0.0
    assert _load(ONE).balance == 4.0
    assert _load(ONE).num_dead == 3


def test_two_choices_a_token_bound_the_imbalance() -> None:
    """With K = 2 of E = 8 experts the worst load is one half twice: ln 2, and sqrt(E / K - 1)."""
    worst = (0.5, 0.5, *(0.0,) * 6)
    assert entropy(worst) == pytest.approx(math.log(2))
    assert coefficient_of_variation(worst) == pytest.approx(math.sqrt(3))


def test_layer_of_one_expert_is_as_even_as_it_can_be() -> None:
    assert _load((1.0,)).normalised_entropy == 1.0
    assert coefficient_of_variation((1.0,)) == 0.0


def test_divergence_is_0_for_equal_and_1_bit_for_disjoint_distributions() -> None:
    assert jensen_shannon([EVEN, EVEN]) == 0.0
    assert jensen_shannon([(0.5, 0.5, 0.0, 0.0), (0.0, 0.0, 0.9, 0.1)]) == pytest.approx(1.0)
    assert jensen_shannon([ONE, ONE[::-1], (0.0, 1.0, 0.0, 0.0)]) == pytest.approx(math.log2(3))


def test_divergence_agrees_with_the_value_in_scipys_documentation() -> None:
    """Source: docs.scipy.org, scipy.spatial.distance.jensenshannon, whose value is the root of the divergence in nats."""
    assert jensen_shannon([(1.0, 0.0), (0.5, 0.5)]) == pytest.approx(0.46450140402245893**2 / math.log(2), rel=1e-12)


def test_formulas_agree_with_scipy() -> None:
    stats, distance = pytest.importorskip("scipy.stats"), pytest.importorskip("scipy.spatial.distance")
    generator = np.random.default_rng(0)
    for num_experts in (2, 5, 16):
        p, q = generator.dirichlet(np.full(num_experts, 0.3), size=2)
        assert entropy(p) == pytest.approx(stats.entropy(p), rel=1e-12)
        assert coefficient_of_variation(p) == pytest.approx(stats.variation(p), rel=1e-12)
        assert jensen_shannon([p, q]) == pytest.approx(distance.jensenshannon(p, q, base=2) ** 2, rel=1e-9)


@settings(deadline=None)
@given(DISTRIBUTIONS)
def test_formulas_agree_with_numpy(distributions: list[tuple[float, ...]]) -> None:
    """The divergence by the other definition: entropy of the mean less the mean of the entropies."""
    p_DE = np.array(distributions)

    def entropies(shares: np.ndarray) -> np.ndarray:
        return -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0).sum(axis=-1)

    between = (entropies(p_DE.mean(axis=0)) - entropies(p_DE).mean()) / np.log(2)
    assert jensen_shannon(distributions) == pytest.approx(between, abs=1e-12)
    for shares in distributions:
        assert entropy(shares) == pytest.approx(entropies(np.array(shares)), abs=1e-12)
        assert coefficient_of_variation(shares) == pytest.approx(np.std(shares) / np.mean(shares), abs=1e-12)
        # Var = E[p^2] - E[p]^2 gives CV^2 = E sum p^2 - 1, the balance where the gates are as the load.
        assert _load(shares).balance == pytest.approx(1 + coefficient_of_variation(shares) ** 2, rel=1e-9)


@settings(deadline=None)
@given(DISTRIBUTIONS, st.randoms(use_true_random=False))
def test_formulas_keep_their_bounds_and_do_not_care_for_order(distributions: list[tuple[float, ...]], random: Any) -> None:
    num_experts, between = len(distributions[0]), jensen_shannon(distributions)
    assert 0 <= between <= math.log2(len(distributions)) + 1e-12
    order = random.sample(range(num_experts), num_experts)
    shuffled = [tuple(shares[expert] for expert in order) for shares in random.sample(distributions, len(distributions))]
    assert jensen_shannon(shuffled) == pytest.approx(between, abs=1e-12)
    for shares in distributions:
        assert 0 <= entropy(shares) <= math.log(num_experts) + 1e-12
        assert 0 <= coefficient_of_variation(shares) <= math.sqrt(num_experts - 1) + 1e-12
        assert jensen_shannon([shares, shares]) == 0.0


def test_drop_rate_weighs_experts_by_their_load() -> None:
    assert _load((0.75, 0.25), dropped=(0.4, 0.0)).drop_rate == pytest.approx(0.3)


def test_dead_experts_have_less_than_a_hundredth_of_an_even_load() -> None:
    assert _load((0.9925, 0.0025, 0.0025 - 1e-9, 0.0025 + 1e-9)).num_dead == 1


def test_divergence_needs_two_domains_of_the_same_report_and_layer() -> None:
    here = [_load(ONE), _load(EVEN, domain="bioasq")]
    elsewhere = [_load(EVEN, layer=1), _load(EVEN, step=20, domain="bioasq")]
    [found] = divergences([*here, *elsewhere])
    assert (found.layer, found.step, found.load) == (0, 10, jensen_shannon([ONE, EVEN]))


def _write_routing(storage: Path, key: str, *layers: Mapping[tuple[str, int], Mapping[str, Sequence[float]]]) -> None:
    """Of each layer: (split, step) to domain to the experts' load; gates are half way to an even load, and 10 % is dropped."""
    rows = [
        {
            "trial_key": key, "attempt": 1, "step": step, "split": split, "domain": domain, "layer": layer, "expert": expert,
            "load_share": share, "mean_gate": (share + 1 / len(load)) / 2, "dropped_share": 0.1,
        }
        for layer, reports in enumerate(layers)
        for (split, step), domains in reports.items()
        for domain, load in domains.items()
        for expert, share in enumerate(load)
    ]  # fmt: skip
    write_part(storage, "routing", attempt_part(key, 1), rows)


def _values(spec: dict[str, Any], panel: dict[str, Any]) -> list[dict[str, Any]]:
    """A panel's rows; Altair keeps data that several charts share at the top."""
    rows: list[dict[str, Any]] = spec["datasets"][panel["data"]["name"]]
    return rows


KEYS = {share: trial_key("exbert", share, "shuffled", 0) for share in (20, 80)}


@pytest.fixture
def routed(tmp_path: Path) -> Path:
    """Four trials, two of ExBERT: one validated twice and tested, one validated once."""
    synthetic_ledger(tmp_path, orders=("shuffled",), shares=(20, 80))
    before, after = {"squad": EVEN, "bioasq": EVEN}, {"squad": (0.5, 0.5, 0, 0), "bioasq": (0, 0, 0.5, 0.5)}
    tested = {"squad": (0.7, 0.1, 0.1, 0.1), "bioasq": (0.1, 0.1, 0.1, 0.7)}
    _write_routing(tmp_path, KEYS[80], {("val", 250): before, ("val", 750): after, ("test", 750): tested})
    _write_routing(tmp_path, KEYS[20], {("val", 250): after})
    return tmp_path


def test_table_has_the_test_of_each_trial_or_else_its_last_validation(routed: Path) -> None:
    table, notes = routing_table(Ledger(routed))
    rows = table.to_pylist()
    assert [(row["share"], row["split"], row["step"], row["domain"]) for row in rows] == [
        (20, "val", 250, "squad"), (20, "val", 250, "bioasq"), (80, "test", 750, "squad"), (80, "test", 750, "bioasq"),
    ]  # fmt: skip
    assert [row["js_load"] for row in rows[:2]] == [1.0, 1.0]
    assert rows[2]["max_load"] == pytest.approx(70)
    assert rows[2]["dropped"] == pytest.approx(10)
    assert rows[2]["cv"] == pytest.approx(math.sqrt(4 * 0.52 - 1))
    assert rows[2]["balance"] == pytest.approx(1 + (4 * 0.52 - 1) / 2)
    assert (rows[0]["dead"], rows[2]["dead"], rows[2]["experts"]) == (2, 0, 4)
    assert notes[0] == "2 of 4 trials have measured expert layers"


def test_loads_come_with_their_epoch_and_divergences_follow_training(routed: Path) -> None:
    found = load_routing(Ledger(routed), "grid-1")
    validated = [one for one in divergences(found.of_trial(KEYS[80])) if one.split == "val"]
    assert [(one.epoch, one.load) for one in validated] == [(1.0, 0.0), (3.0, 1.0)]
    assert 0 < validated[1].gate < validated[1].load


def test_superseded_attempts_leave_the_table(routed: Path) -> None:
    """A second attempt that began again from the start takes the place of the first."""
    key = KEYS[20]
    write_part(
        routed, "attempts", attempt_part(key, 1), [{"trial_key": key, "attempt": 1, "status": "lost", "resumed_step": 0}]
    )
    done = {"trial_key": key, "attempt": 2, "status": "completed", "resumed_step": 0}
    write_part(routed, "attempts", attempt_part(key, 2), [done])
    row = {"trial_key": key, "attempt": 2, "step": 250, "split": "val", "layer": 0, "mean_gate": 0.5, "dropped_share": 0.0}
    rows = [{**row, "domain": d, "expert": e, "load_share": 0.5} for d in ("squad", "bioasq") for e in (0, 1)]
    write_part(routed, "routing", attempt_part(key, 2), rows)
    table, _ = routing_table(Ledger(routed))
    assert table.column("experts").to_pylist()[:2] == [2, 2]


def test_sweep_without_experts_gives_no_rows_and_says_why(complete: Path, tmp_path: Path) -> None:
    for storage, name in ((complete, "grid-1"), (tmp_path, "this ledger")):
        table, notes = routing_table(Ledger(storage, must_exist=False))
        assert (table.num_rows, table.column_names[:2]) == (0, ["trial_key", "trainable"])
        assert notes[0].startswith(f"no trial of {name} has measured expert layers: routing is recorded at each validation")


def test_figure_shows_the_best_trial_or_the_chosen_one(routed: Path) -> None:
    ledger = Ledger(routed)
    best = max(KEYS, key=lambda share: sum(exact_match("exbert", share, "shuffled", 0, domain) for domain in DOMAINS))
    charts = [draw_figure(ledger, "routing", None, key)[0].to_dict() for key in (None, KEYS[20], KEYS[80])]
    subtitles = [chart["title"]["subtitle"] for chart in charts]
    assert f"({KEYS[best]}) · highest EM of 2 trials with experts · even load 25 %" in subtitles[0]
    assert all(KEYS[share] in subtitle for share, subtitle in zip((20, 80), subtitles[1:], strict=True))
    # Only where there are several validations is there a map over training.
    assert [len(chart["vconcat"]) for chart in charts[1:]] == [1, 2]
    cells = _values(charts[2], charts[2]["vconcat"][0])
    assert [round(cell["load"]) for cell in cells] == [70, 10, 10, 10, 10, 10, 10, 70]


def test_divergence_is_drawn_over_training_or_where_that_is_a_point_by_mixture(routed: Path) -> None:
    spec = draw_figure(Ledger(routed), "divergence")[0].to_dict()
    over_training = spec["vconcat"][0]
    assert over_training["spec"]["layer"][0]["encoding"]["x"]["field"] == "epoch"
    drawn = [(row["share"], row["epoch"], row["bits"]) for row in _values(spec, over_training)]
    assert drawn == [(20, 1.0, 1.0), (80, 1.0, 0.0), (80, 3.0, 1.0)]
    tested = {"squad": EVEN, "bioasq": ONE}
    _write_routing(routed, KEYS[80], {("val", 750): tested, ("test", 750): tested})
    by_mixture = draw_figure(Ledger(routed), "divergence")[0].to_dict()["vconcat"][0]
    assert by_mixture["spec"]["layer"][0]["encoding"]["x"]["sort"] == ["20:80", "80:20"]


def test_where_in_the_model_the_domains_part_is_drawn_by_layer(routed: Path) -> None:
    with pytest.raises(QueryError, match="no trial of grid-1 has routed two domains through several expert layers; run one"):
        draw_figure(Ledger(routed), "specialisation")
    alike, apart = {"squad": EVEN, "bioasq": EVEN}, {"squad": ONE, "bioasq": (0.0, 1.0, 0.0, 0.0)}
    _write_routing(routed, KEYS[80], {("test", 750): alike}, {("test", 750): apart})
    spec = draw_figure(Ledger(routed), "specialisation")[0].to_dict()
    drawn = [(row["trial_key"], row["layer"], row["bits"]) for row in _values(spec, spec["vconcat"][0])]
    assert drawn == [(KEYS[80], 0, 0.0), (KEYS[80], 1, 1.0)]


@pytest.mark.parametrize("name", ["routing", "divergence"])
def test_figures_render(routed: Path, name: str) -> None:
    chart, _ = draw_figure(Ledger(routed), name)
    assert encode_chart(chart, "svg").startswith(b"<svg")


def test_figures_of_a_sweep_without_experts_say_what_to_do(complete: Path) -> None:
    for name in ("routing", "divergence"):
        with pytest.raises(QueryError, match=r"no trial of grid-1 has measured expert layers: .* such as the trainable exbert"):
            draw_figure(Ledger(complete), name)


def test_divergence_of_one_domain_is_refused(routed: Path) -> None:
    for share in KEYS:
        _write_routing(routed, KEYS[share], {("val", 250): {"squad": EVEN}})
    with pytest.raises(QueryError, match="the routing of grid-1 was measured on one domain only"):
        draw_figure(Ledger(routed), "divergence")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "routing", "--sweep", "grid-9"], "no sweep 'grid-9' in the ledger, the nearest is 'grid-1'"),
        (["figure", "routing", "--trial", "abc"], f"no trial 'abc' with measured expert layers in grid-1; it has {KEYS[20]}"),
        (["figure", "divergence", "--trial", "abc"], "only the figure routing shows one trial, got the trial 'abc'"),
    ],
)
def test_mistake_is_one_line_and_exit_2(routed: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, [*arguments, "--storage", str(routed)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


def test_command_prints_the_table_and_says_what_it_means(routed: Path) -> None:
    result = CliRunner().invoke(app, ["table", "routing", "--format", "json", "--storage", str(routed)])
    assert [row["js_load"] for row in json.loads(result.stdout)][:2] == [1.0, 1.0]
    assert "dead the experts below 1% of an even load" in result.stderr
