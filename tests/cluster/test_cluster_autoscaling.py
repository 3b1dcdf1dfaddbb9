"""Nodes come because trials wait for them, and go when nothing is left for them; what no node can hold is refused at once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_autoscaler import FakeCluster, fake_cluster, namespaces_are_permitted

from results.ledger import Ledger

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not namespaces_are_permitted(), reason="needs process namespaces: root, unshare and nsenter"),
]

NODE_TYPES = {
    "gpu_worker": {
        "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 100_000_000},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 2,
    }
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster(NODE_TYPES) as cluster:
        yield cluster


def nodes_used(storage: Path) -> set[str]:
    """On which a trial has been begun."""
    rows = Ledger(storage, must_exist=False).sql("SELECT DISTINCT node_id FROM attempts").to_pylist()
    return {row["node_id"] for row in rows}


@pytest.mark.timeout(600)
def test_a_grid_on_gpus_brings_nodes_up_and_leaves_none_behind(
    cluster: FakeCluster, tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    preset = preset_file(trainables=["distilbert"], resources={})  # gpus_per_trial: auto
    assert cluster.worker_ids() == set()
    with cluster.crawling():
        driver = cluster.sweep("grid", "--preset", str(preset), "--storage", str(tmp_path / "storage"))
        cluster.wait_for(lambda: len(nodes_used(tmp_path / "storage")) == 2, seconds=300)
    assert driver.wait(timeout=300) == 0, cluster.said
    ledger = Ledger(tmp_path / "storage")
    assert ledger.sql("SELECT status, count(*) AS n FROM trials GROUP BY 1").to_pylist() == [{"status": "completed", "n": 4}]
    runs = ledger.sql("SELECT slots, gpus_per_trial FROM runs").to_pylist()
    assert runs == [{"slots": 2, "gpus_per_trial": 1.0}]
    cluster.wait_for(lambda: not cluster.worker_ids(), seconds=60)


@pytest.mark.timeout(600)
def test_a_search_has_as_many_trials_under_way_as_the_cluster_can_come_to_hold(
    cluster: FakeCluster, tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    search = {"space": "exbert_embedded", "trials": 2, "max_epochs": 8, "grace": 8}
    preset = preset_file(resources={}, search=search)
    with cluster.crawling():
        driver = cluster.sweep("search", "--preset", str(preset), "--storage", str(tmp_path / "storage"), "--yes")
        cluster.wait_for(lambda: len(nodes_used(tmp_path / "storage")) == 2, seconds=300)
    assert driver.wait(timeout=300) == 0, cluster.said


def test_what_no_node_type_can_hold_is_refused_at_once(
    cluster: FakeCluster, tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    preset = preset_file(trainables=["distilbert"], resources={"gpus_per_trial": 8})
    driver = cluster.sweep("grid", "--preset", str(preset), "--storage", str(tmp_path / "storage"))
    assert driver.wait(timeout=120) == 2
    assert "a trial asks for 1 CPUs and 8 GPUs" in cluster.said
    assert "the autoscaler may start gpu_worker: 1 CPUs, 1 GPUs" in cluster.said
