"""The commands `orchestrator.run cluster ...`: a cluster that `ray up` has started."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cluster_wait import BOOTSTRAP_FILE, LOG_DIR, Expected, Node, missing_workers, setup_errors, wait_for_nodes
from orchestrator.console import say
from orchestrator.errors import SweepError
from orchestrator.options import AddressOption

__all__ = ["cluster_app"]

cluster_app = typer.Typer(no_args_is_help=True, help="Look after a cluster that `ray up` has started.")


@cluster_app.callback()
def cluster() -> None:
    """Look after a cluster that `ray up` has started."""


@cluster_app.command()
def wait(
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs that all nodes together must have.")] = 0,
    nodes: Annotated[int, typer.Option("--nodes", min=0, help="Workers, the head not counted.")] = 0,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait.")] = 600,
    address: AddressOption = "auto",
) -> None:
    """Wait until the workers are there; exit code 1 and their set-up errors when they do not come in time.

    `ray up` ends well as soon as the head runs. To be run on the head.

    Example: ray exec cluster.yaml 'python -m orchestrator.run cluster wait --gpus 2'
    """
    from orchestrator.ray_environment import set_ray_environment

    expected = Expected(gpus=gpus, nodes=nodes)
    if not gpus and not nodes:
        raise SweepError("cluster wait takes --gpus N, --nodes N or both: what the cluster must have")
    set_ray_environment(address)
    from orchestrator.ray_cluster import nodes as ray_nodes
    from orchestrator.ray_cluster import ray_session

    with ray_session(address):
        found = wait_for_nodes(
            lambda: [Node.of(each) for each in ray_nodes()],
            expected,
            timeout,
            clock=time.monotonic,
            sleep=time.sleep,
            say=say,
        )
    if not (lacking := expected.lacks(found)):
        say(f"the cluster is ready: {sum(node.gpus for node in found):g} GPUs on {len(found)} nodes, the head included")
        return
    say(f"after {timeout:g} s there are {lacking}")
    for worker in missing_workers(BOOTSTRAP_FILE, found):
        say(f"{worker} has not joined")
    errors = setup_errors(LOG_DIR)
    for line in errors or [
        f"nothing about failures in {LOG_DIR}/monitor.*; it is on the head, where `cluster wait` is to be run"
    ]:
        say(line)
    raise typer.Exit(1)
