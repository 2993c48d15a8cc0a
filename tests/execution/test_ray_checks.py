"""What a cluster must have is looked at before any cell runs, and what is missing is one line that names it."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from robusteval.execution import nodes
from robusteval.execution.executors import ExecutorSetup
from robusteval.execution.lost import LostCells
from robusteval.execution.nodes import NodeNeeds, inspect_node, other_software, probe_path, problems_of, software
from robusteval.execution.ray import RayExecutor
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import Plan, make_plan
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Resources
from robusteval.store.store import Store

SUITE = """
name: tiny
version: 1
summary: A row on a few examples.
train: {data: DATA, domains: [upright], architecture: small-cnn}
methods:
  - {method: erm, params: {epochs: 1}}
evaluate:
  id: {examples: 4, robust_examples: 2}
  threats: [{epsilon: 0.1, attacks: [{name: pgd, params: {steps: 2}}]}]
resources: {cpus: CPUS}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def plan_of(folder: Path, store: Store, data: str = "digits", cpus: int = 1) -> Plan:
    file = folder / "tiny.yaml"
    file.write_text(SUITE.replace("DATA", data).replace("CPUS", str(cpus)))
    return make_plan(expand(load_suite(str(file))), store.state)


def setup_of(store: Store, **settings: Any) -> ExecutorSetup:
    return ExecutorSetup(
        **{"store_uri": store.uri, "on_progress": lambda *_: None, "cells": 4, "resources": Resources()} | settings
    )


def refused(plan: Plan, store: Store, options: RunOptions) -> str:
    with pytest.raises(UsageError) as refusal:
        run_plan(plan, store, options)
    assert not list(store.backend.paths("records"))
    assert not list(store.backend.paths("failures"))
    assert not list(store.backend.paths("probes"))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# -- without a cluster ---------------------------------------------------------------------------------------------


def test_without_ray_the_extra_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'robusteval\[ray\]'"):
        RayExecutor(setup_of(store))


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_at_which_nothing_listens_is_named_at_once(store: Store, form: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
    begin = time.monotonic()
    with pytest.raises(UsageError, match=f"{address}.*no Ray cluster answers there"):
        RayExecutor(setup_of(store, address=address))
    assert time.monotonic() - begin < 30


def test_an_address_that_takes_calls_and_says_nothing_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr("robusteval.execution.ray_session._ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"{address}.*timed out"):
            RayExecutor(setup_of(store, address=address))


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:port", "host:99999", "http://host"])
def test_an_address_that_is_none_is_named(store: Store, address: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(UsageError, match="give auto, ray://host:port or host:port"):
        RayExecutor(setup_of(store, address=address))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunOptions(executor="ray", executor_options={"partition": "gpu"}), "unknown parameter 'partition'"),
        (RunOptions(executor="ray", executor_options={"resubmit": "-1"}), "parameter 'resubmit'"),
        (RunOptions(executor="serial", executor_options={"resubmit": "1"}), "executor 'serial': unknown parameter"),
        (RunOptions(executor="processes", address="auto"), "--address 'auto' is for executors that join a cluster"),
        (RunOptions(executor="rai"), "did you mean 'ray'"),
    ],
)
def test_settings_that_an_executor_does_not_have_are_named(
    tmp_path: Path, store: Store, options: RunOptions, message: str
) -> None:
    assert message in refused(plan_of(tmp_path, store), store, options)


def test_other_versions_are_told_apart_and_other_sources_only_where_versions_are_equal() -> None:
    ours = software()
    assert other_software(ours, dict(ours)) is None
    told = other_software(ours, {**ours, "torch": "1.0", nodes.SOURCE: "another"})
    assert told == f"has torch 1.0 (here {ours['torch']}); install the same versions on every node"
    older = other_software(ours, {**ours, "python": "3.10"})
    assert older is not None and "python 3.10" in older
    changed = other_software(ours, {**ours, nodes.SOURCE: "another"})
    assert changed is not None and "other source files" in changed


def test_a_machine_with_a_folder_of_its_own_in_place_of_the_store_is_noticed(tmp_path: Path) -> None:
    theirs, ours = Store.open(tmp_path / "theirs"), Store.open(tmp_path / "ours")
    report = inspect_node(NodeNeeds(theirs.uri, (), "probe"))
    assert problems_of(report, NodeNeeds(theirs.uri, (), "probe")) == []
    assert theirs.backend.read(probe_path("probe")) is None
    problems = problems_of(report, NodeNeeds(ours.uri, (), "probe"))
    assert len(problems) == 1 and "has a store of its own" in problems[0]


def test_a_store_that_a_machine_cannot_write_is_named() -> None:
    needs = NodeNeeds("file:///proc/robusteval", (), "probe")
    problems = problems_of(inspect_node(needs), needs)
    assert len(problems) == 1 and "cannot write to the store file:///proc/robusteval" in problems[0]


def test_a_lost_cell_is_handed_out_again_so_often_and_no_more() -> None:
    from robusteval.execution.events import CellTask

    lost = LostCells(2)
    task, other = CellTask("a", "{}"), CellTask("b", "{}")
    assert [lost.again(task) for _ in range(3)] == [True, True, False]
    assert lost.again(other)
    summary = lost.given_up(task, "the node\ndied")
    assert (summary.key, summary.status) == ("a", "failed")
    assert summary.headline == "WorkerDied: the node died (3 times)"


# -- on a cluster --------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow
def test_cells_that_fit_on_no_node_are_refused_with_what_there_is(
    ray_cluster: Any, tmp_path: Path, store: Store
) -> None:
    text = refused(plan_of(tmp_path, store, cpus=64), store, RunOptions(executor="ray"))
    assert "no node of the Ray cluster has 64 CPUs and 2.0 GB" in text
    assert "1 CPUs and 8.0 GB" in text


@pytest.mark.ray
@pytest.mark.slow
def test_a_process_stays_with_its_cluster_and_refuses_another(ray_cluster: Any, store: Store) -> None:
    RayExecutor(setup_of(store, address=ray_cluster.address)).stop()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def greet() -> None:
            connection, _ = other.accept()
            connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            connection.close()

        greeting = threading.Thread(target=greet)
        greeting.start()
        with pytest.raises(
            UsageError, match=f"127.0.0.1:{port}.*connected to the Ray cluster at {ray_cluster.address}"
        ):
            RayExecutor(setup_of(store, address=f"127.0.0.1:{port}"))
        greeting.join()


@pytest.mark.ray
@pytest.mark.slow
def test_accelerators_that_no_node_has_are_refused(ray_cluster: Any, tmp_path: Path, store: Store) -> None:
    text = refused(plan_of(tmp_path, store), store, RunOptions(executor="ray", device="cuda"))
    assert "has 1 CPUs, 1 GPUs and 2.0 GB" in text
    assert "valid: auto, cpu, cuda" in refused(
        plan_of(tmp_path, store), store, RunOptions(executor="ray", device="cuda:1")
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_with_another_torch_is_refused_by_name(
    ray_cluster: Any, add_node: Callable[..., Any], tmp_path: Path, store: Store
) -> None:
    folder = tmp_path / "other" / "torch-0.0.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
    node = add_node(PYTHONPATH=str(folder.parent))
    text = refused(plan_of(tmp_path, store), store, RunOptions(executor="ray"))
    assert "torch 0.0.1 (here " in text
    assert node.node_id[:8] in text
    assert text.count("has torch") == 1


@pytest.mark.ray
@pytest.mark.slow
def test_nodes_without_the_data_of_the_plan_are_refused(ray_cluster: Any, tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "images"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / "upright" / name).mkdir(parents=True, exist_ok=True)
            for index in range(8):
                pixels = Image.new("RGB", (16, 16), (index * 20, len(name) * 9, len(split)))
                pixels.save(folder / "upright" / name / f"{split}-{index}.png")
    data = f"{{name: image-folder, params: {{path: {folder}, size: 16}}}}"
    plan = plan_of(tmp_path, store, data)
    folder.rename(tmp_path / "moved")
    text = refused(plan, store, RunOptions(executor="ray"))
    assert text.count("the dataset 'image-folder'") == 2
    assert str(folder) in text
