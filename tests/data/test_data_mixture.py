"""Mixtures are nested and ordered as asked; every epoch's batches hold every window once and depend on seeds alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables.config import MixtureConfig
from trainables.data.errors import DataError
from trainables.data.mixture import batches, epoch_order, largest_size, mix

IDS = {"squad": [f"s{i}" for i in range(60)], "bioasq": [f"b{i}" for i in range(45)]}
PLANS = st.tuples(
    st.lists(st.integers(8, 40), min_size=1, max_size=700),
    st.floats(0, 1),
    st.integers(1, 9),
    st.sampled_from(["concatenated", "shuffled"]),
    st.sampled_from(["as_ordered", "paper"]),
    st.integers(0, 3),
    st.integers(0, 2**63),
)


def _mixture(size: int, share: int, order: str = "concatenated", seed: int = 0) -> MixtureConfig:
    return MixtureConfig(size=size, share=share, order=order, seed=seed)  # type: ignore[arg-type]


def _mix(size: int, share: int, order: str = "concatenated", seed: int = 0) -> list[tuple[int, int]]:
    mixture = _mixture(size, share, order, seed)
    return mix(mixture.counts, IDS, mixture)


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 5))
def test_a_larger_count_only_adds_examples(fewer: int, more: int, seed: int) -> None:
    fewer, more = sorted((fewer, more))
    small, large = ([i for domain, i in _mix(40, share, seed=seed) if domain == 0] for share in (fewer * 10, more * 10))
    assert large[: len(small)] == small


@pytest.mark.parametrize("share", range(0, 101, 20))
def test_concatenated_and_shuffled_hold_the_same_examples(share: int) -> None:
    concatenated, shuffled = _mix(40, share), _mix(40, share, "shuffled")
    assert [domain for domain, _ in concatenated] == [0] * (40 * share // 100) + [1] * (40 - 40 * share // 100)
    assert sorted(concatenated) == sorted(shuffled)
    assert len(set(shuffled)) == 40
    assert concatenated != shuffled


def test_a_mixture_does_not_depend_on_the_order_of_rows() -> None:
    mixture = _mixture(40, 60, "shuffled")
    reversed_ids = {name: ids[::-1] for name, ids in IDS.items()}
    names = list(IDS)
    before = [IDS[names[domain]][i] for domain, i in mix(mixture.counts, IDS, mixture)]
    assert before == [reversed_ids[names[domain]][i] for domain, i in mix(mixture.counts, reversed_ids, mixture)]


def test_seeds_give_different_mixtures() -> None:
    assert set(_mix(40, 60, seed=0)) != set(_mix(40, 60, seed=1))


def test_too_few_examples_are_refused_with_the_largest_size_that_works() -> None:
    with pytest.raises(
        DataError, match="'squad' has 60 training examples, the mixture needs 80; set mixture_size to at most 75"
    ):
        _mix(100, 80)
    assert len(_mix(75, 80)) == 75
    with pytest.raises(DataError, match=r"'bioasq' has 45 training examples, the mixture needs 48; .* at most 45 at share=0 %"):
        _mix(48, 0)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 100))
def test_the_largest_size_fits_and_the_next_does_not(first: int, second: int, share: int) -> None:
    size, step = largest_size([first, second], (share, 100 - share)), 100 // math.gcd(share, 100)
    for candidate, fits in ((size, True), (size + step, False)):
        counts = (candidate * share // 100, candidate - candidate * share // 100)
        assert (candidate * share % 100 == 0) and ((counts[0] <= first and counts[1] <= second) == fits)


def test_a_count_for_every_domain_is_needed() -> None:
    with pytest.raises(DataError, match="one count per domain, got 2 for squad; name two domains"):
        mix((10, 0), {"squad": IDS["squad"]}, _mixture(10, 100))


@given(PLANS)
def test_an_epoch_reads_every_window_once(plan) -> None:
    lengths, boundary, batch_size, order, sampler, epoch, seed = plan
    domains = (np.arange(len(lengths)) >= boundary * len(lengths)).astype(int)
    asked = {"batch_size": batch_size, "order": order, "sampler": sampler, "epoch": epoch, "seed": seed}
    found = batches(np.array(lengths), domains, **asked)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert len(found) == math.ceil(len(lengths) / batch_size)
    sizes = sorted(len(batch) for batch in found)
    assert all(size == batch_size for size in sizes[1:])
    for again, batch in zip(batches(np.array(lengths), domains, **asked), found, strict=True):
        assert np.array_equal(again, batch)
    if order == "concatenated" and sampler == "as_ordered":
        assert (np.diff(domains[np.concatenate(found)]) >= 0).all()


def test_in_sequence_windows_stay_near_their_place() -> None:
    lengths = np.random.default_rng(0).integers(10, 99, 1000)
    domains = (np.arange(1000) >= 403).astype(int)
    found = batches(lengths, domains, batch_size=4, order="concatenated", sampler="as_ordered", epoch=0, seed=0)
    read = np.concatenate(found)
    assert np.abs(read - np.arange(1000)).max() < 8 * 4
    assert set(read[:403].tolist()) == set(range(403))
    later = batches(lengths, domains, batch_size=4, order="concatenated", sampler="as_ordered", epoch=5, seed=9)
    assert np.array_equal(np.concatenate(later), read)


@pytest.mark.parametrize(("order", "sampler"), [("shuffled", "as_ordered"), ("shuffled", "paper"), ("concatenated", "paper")])
def test_shuffled_epochs_differ_by_epoch_and_by_seed(order: str, sampler: str) -> None:
    orders = {
        tuple(epoch_order(50, order=order, sampler=sampler, epoch=epoch, seed=seed).tolist())  # type: ignore[arg-type]
        for epoch in (0, 1)
        for seed in (0, 1)
    }
    assert len(orders) == 4


def test_batches_pad_little_and_are_not_sorted_by_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 384, 4000)
    found = batches(lengths, np.zeros(4000, dtype=int), batch_size=16, order="shuffled", sampler="as_ordered", epoch=0, seed=0)
    padded = sum(len(batch) * lengths[batch].max() for batch in found)
    assert lengths.sum() / padded > 0.95
    longest = np.array([lengths[batch].max() for batch in found])
    assert 0.3 < (np.diff(longest) > 0).mean() < 0.7


def test_the_global_generator_is_left_alone() -> None:
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    batches(np.arange(1, 99), np.zeros(98, dtype=int), batch_size=4, order="shuffled", sampler="paper", epoch=0, seed=0)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_examples_of_more_domains_add_up_and_keep_their_proportions() -> None:
    mixture = MixtureConfig(size=30, examples=(20, 10, 0), order="concatenated")
    ids = {name: [f"{name}-{i}" for i in range(60)] for name in ("a", "b", "c")}
    assert mixture.counts == mixture.parts == (20, 10, 0)
    assert [domain for domain, _ in mix(mixture.counts, ids, mixture)] == [0] * 20 + [1] * 10
    with pytest.raises(ValidationError, match=r"examples must add up to size=30, got \[20, 9, 0\]"):
        MixtureConfig(size=30, examples=(20, 9, 0))
    few = {**ids, "b": ids["b"][:7]}
    with pytest.raises(DataError, match="'b' has 7 training examples, the mixture needs 10; set mixture_size to at most 21 "):
        mix(mixture.counts, few, mixture)
