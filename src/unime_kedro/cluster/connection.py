"""A Ray cluster: one that runs somewhere, or processes of this machine alone."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unime_kedro.cluster.worker_errors import ray_errors, tried, unpack
from unime_kedro.errors import ConfigurationError

#: seconds
_PATIENCE = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """Where workers run, and what each one gets; see ``judge.ray`` in conf/base/parameters/judge.yml.

    Attributes:
        address: ``host:port`` of a cluster, ``auto`` for the one that this machine belongs to, None for a cluster of
            this machine's processes that ends with the run.
        min_workers: Fewest workers; work begins when the first one is ready.
        max_workers: Most workers; None for as many as there is room for.
        cpus_per_worker: CPU cores that a worker takes.
        gpus_per_worker: GPUs that a worker takes; below 1 several share one.
    """

    address: str | None = None
    min_workers: int = 1
    max_workers: int | None = None
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0


def need_ray() -> None:
    """Make sure that Ray is installed.

    Raises:
        ConfigurationError: If it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError(
            "backend: ray needs Ray, which is not installed here: pip install -c constraints.txt -e '.[ray]', on every "
            "machine of the cluster and in the same versions. Or use backend: transformers."
        )


def connect(options: ClusterOptions) -> bool:
    """Connect to the cluster, or start one; a connection that there is stays.

    Args:
        options: Where to.

    Returns:
        Whether it was this call that connected: whoever did disconnects.

    Raises:
        ConfigurationError: If Ray is not installed, or there is no cluster at the address.
    """
    need_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of what Ray Data itself does
    # workers without a GPU must not see one; without this Ray warns that it will leave them to in future
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    import ray

    if ray.is_initialized():
        return False
    address = options.address
    if address is not None and address.startswith("ray://"):
        raise ConfigurationError(
            f"ray.address: {address} is for Ray's client, which is elsewhere than the cluster; the tables are to be "
            "where the workers write. Start this command on a machine of the cluster, with ray.address: auto."
        )
    if address is not None and address != "auto":
        _check_port(address)
    here: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        # "local": without it Ray would look for a cluster that happens to run here
        ray.init(
            address="local" if address is None else address, logging_level=logging.ERROR, log_to_driver=False, **here
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise _no_answer(address, (str(error).strip() or type(error).__name__).splitlines()[0]) from error
    _quiet()
    return True


def _check_port(address: str) -> None:
    """Look whether anybody listens, for a few seconds: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise _no_answer(address, str(error)) from error


def _no_answer(address: str | None, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"no Ray cluster answers at ray.address: {address} ({reason}). `ray status` on a machine of the cluster says "
        "whether it runs and where: host:port of its head, or auto on one of its machines; null starts a cluster of "
        "this machine's processes."
    )


def disconnect() -> None:
    """Leave the cluster; one of this machine's processes ends."""
    import ray

    ray.shutdown()


def _quiet() -> None:
    """Ray Data's own bars and reports of every execution would stand between ours."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def room_for_workers(options: ClusterOptions) -> int:
    """Return how many workers the cluster has room for now, at least one.

    Raises:
        ConfigurationError: If it has room for none, or for fewer than ``min_workers``.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker}
    found = sum(
        int(min((node.get(name, 0) + 1e-9) / amount for name, amount in wanted.items() if amount)) for node in nodes
    )
    if found < options.min_workers:
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigurationError(
            f"the Ray cluster has room for {found} workers with {options.cpus_per_worker:g} CPUs and "
            f"{options.gpus_per_worker:g} GPUs each, ray.min_workers asks for {options.min_workers}. Its machines "
            f"have: {have}. Lower ray.cpus_per_worker, ray.gpus_per_worker or ray.min_workers, or set ray.max_workers "
            "to wait for machines that are still to come."
        )
    return found


def pool_of_workers(options: ClusterOptions) -> dict[str, Any]:
    """Return what ``map_batches`` needs to know of its workers."""
    from ray.data import ActorPoolStrategy

    most = room_for_workers(options) if options.max_workers is None else options.max_workers
    fewest = min(options.min_workers, most)
    return {
        "compute": ActorPoolStrategy(min_size=fewest, max_size=most, initial_size=most),
        "num_cpus": options.cpus_per_worker,
        "num_gpus": options.gpus_per_worker,
    }


def on_a_worker(call: Callable[[Any], Any], make: Any, options: ClusterOptions) -> Any:
    """Return what ``call(make)`` gives on a machine of the cluster, in a process that ends with it.

    Raises:
        UnimeError: What it raises.
        ModelError: If it raises anything else.
    """
    import ray

    remote = ray.remote(num_cpus=options.cpus_per_worker, num_gpus=options.gpus_per_worker, max_calls=1)(tried)
    with ray_errors():
        found, error = ray.get(remote.remote(call, make))
    if error:
        raise unpack(error)
    return found


def worker_name() -> str:
    """Name this process: its machine, and its id there."""
    return f"{platform.node()}-{os.getpid()}"
