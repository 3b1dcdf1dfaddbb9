"""What fits where: on nodes there are, and on those that an autoscaler may start. Arithmetic alone."""

import pytest

from orchestrator.errors import InfeasibleError
from orchestrator.placement import HEAD, Growth, NodeType, Request, check_feasible, has_gpus, most_trials, trials_now

HEAD_NODE = {"CPU": 4.0, HEAD: 1.0, "memory": 8 * 2.0**30}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0, "memory": 32 * 2.0**30}
ON_CPUS, ON_A_GPU = Request(1, 0), Request(1, 1)
UP_TO_FOUR = Growth((NodeType("gpu_worker", {"CPU": 8.0, "GPU": 1.0}, most=4),), most_nodes=4)


@pytest.mark.parametrize("sharing", [1, 2, 3, 6, 7, 49])
def test_as_many_trials_as_share_a_gpu_fit_on_it(sharing: int) -> None:
    assert Request(1, 1 / sharing).trials_on({"CPU": 64.0, "GPU": 1.0}) == sharing


def test_the_scarcest_resource_decides() -> None:
    assert Request(2, 0).trials_on(GPU_NODE) == 4
    assert Request(2, 0.5).trials_on(GPU_NODE) == 2
    assert Request(2, 0, memory_bytes=20 * 2**30).trials_on(GPU_NODE) == 1
    assert Request(1, 0.25).trials_on(HEAD_NODE) == 0


def test_a_cluster_that_may_grow_holds_what_its_nodes_to_be_hold() -> None:
    assert trials_now(ON_A_GPU, [HEAD_NODE, GPU_NODE]) == 1
    assert most_trials(ON_A_GPU, [HEAD_NODE], None) == 0
    assert most_trials(ON_A_GPU, [HEAD_NODE], UP_TO_FOUR) == 4
    assert most_trials(ON_A_GPU, [HEAD_NODE, GPU_NODE], UP_TO_FOUR) == 4
    assert most_trials(ON_CPUS, [HEAD_NODE], UP_TO_FOUR) == 4 + 4 * 8


def test_all_kinds_together_stay_below_the_clusters_limit() -> None:
    kinds = (NodeType("small", {"CPU": 8.0, "GPU": 1.0}, most=10), NodeType("large", {"CPU": 32.0, "GPU": 4.0}, most=2))
    assert most_trials(ON_A_GPU, [HEAD_NODE], Growth(kinds, most_nodes=5)) == 2 * 4 + 3 * 1


def test_a_kind_whose_resources_nobody_knows_counts_as_the_best_node_there_is() -> None:
    """As in `ray up` with machines that are there (provider local): one kind for all, without resources."""
    unknown = Growth((NodeType("local.cluster.node", {}, most=3),), most_nodes=3)
    assert most_trials(ON_A_GPU, [HEAD_NODE], unknown) == 3
    assert most_trials(ON_A_GPU, [HEAD_NODE, {"CPU": 16.0, "GPU": 2.0}], unknown) == 6
    all_there = [HEAD_NODE, GPU_NODE, GPU_NODE, {"CPU": 16.0, "GPU": 2.0}]
    assert most_trials(ON_A_GPU, all_there, unknown) == 4


def test_what_a_node_type_can_hold_is_waited_for() -> None:
    check_feasible(ON_A_GPU, [HEAD_NODE], UP_TO_FOUR)
    check_feasible(ON_A_GPU, [HEAD_NODE, GPU_NODE], None)
    assert has_gpus([HEAD_NODE], UP_TO_FOUR)
    assert not has_gpus([HEAD_NODE], None)


def test_what_no_node_can_hold_is_refused_naming_what_there_is_and_may_be() -> None:
    with pytest.raises(InfeasibleError) as fixed:
        check_feasible(ON_A_GPU, [HEAD_NODE], None)
    assert "a trial asks for 1 CPUs and 1 GPUs, and the nodes have 4 CPUs, 0 GPUs and 8.0 GiB; lower" in str(fixed.value)
    with pytest.raises(InfeasibleError) as growing:
        check_feasible(Request(1, 8), [HEAD_NODE], UP_TO_FOUR)
    assert "and the autoscaler may start gpu_worker: 8 CPUs, 1 GPUs" in str(growing.value)
    with pytest.raises(InfeasibleError):  # the kind is known, but not one of it may be started
        check_feasible(ON_A_GPU, [HEAD_NODE], Growth((NodeType("gpu_worker", GPU_NODE, most=0),), most_nodes=0))


def test_while_a_machine_of_unknown_resources_is_still_to_come_nothing_is_refused() -> None:
    unknown = Growth((NodeType("local.cluster.node", {}, most=1),), most_nodes=1)
    check_feasible(ON_A_GPU, [HEAD_NODE], unknown)
    with pytest.raises(InfeasibleError):
        check_feasible(Request(1, 2), [HEAD_NODE, GPU_NODE], unknown)
