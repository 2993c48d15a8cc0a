"""A Ray cluster of two nodes on this machine, shared by all tests that need one."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "disabled",
}


NODE = {"num_cpus": 1, "num_gpus": 0, "memory": 8 * 1024**3, "object_store_memory": 80_000_000}


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where the session was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A cluster of two nodes with one CPU each, to which this process is connected."""
    folder = Path(tempfile.mkdtemp(prefix="rv-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**RAY_SETTINGS, "RAY_TMPDIR": str(folder)}.items():
            patch.setenv(name, value)
        ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'robusteval[ray]'")
        cluster = started_cluster({**NODE, "env_vars": {"PYTHONPATH": str(faulty_store(folder / "faulty"))}})
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def add_node(ray_cluster: Any) -> Iterator[Callable[..., Any]]:
    """Adds a node with environment variables of its own to the cluster; it is gone after the test."""
    added = []

    def add(**environment: str) -> Any:
        added.append(ray_cluster.add_node(**NODE, env_vars=environment or None))
        return added[-1]

    yield add
    for node in added:
        if node in ray_cluster.worker_nodes:
            ray_cluster.remove_node(node, allow_graceful=False)


def faulty_store(folder: Path) -> Path:
    """A folder that makes `memory://` a slow store that fails, in every process that has it on its path."""
    entry = folder / "faulty_store-1.dist-info"
    entry.mkdir(parents=True)
    (folder / "buckets").mkdir()
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-store\nVersion: 1\n")
    (entry / "entry_points.txt").write_text("[fsspec.specs]\nmemory = faulty_store:FaultyStore\n")
    shutil.copy(Path(__file__).with_name("faulty_store.py"), folder)
    return folder


def started_cluster(node: dict[str, Any]) -> Any:
    """Two nodes; on a busy machine Ray's first processes may miss the 30 seconds that Ray gives them."""
    from ray.cluster_utils import Cluster

    for left in (2, 1, 0):
        cluster = Cluster()
        try:
            cluster.add_node(**node, include_dashboard=False)
            cluster.add_node(**node)
        except Exception as error:
            cluster.shutdown()
            if not left or "timed out" not in str(error):
                raise
        else:
            return cluster
    raise AssertionError("not reached")
