"""`status`, `plan` and `show` say who runs what; a store that cannot be used is refused before any work."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.execution.inputs import put_inputs
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import Plan, make_plan
from robusteval.store.lease import Lease
from robusteval.store.store import Store

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def plan(store: Store, micro: Path) -> Plan:
    """The plan of `micro`, in a store without results."""
    planned = make_plan(expand(load_suite(str(micro))), store.state)
    put_inputs(planned, store)
    return planned


def leave_dead(store: Store, key: str) -> None:
    """The lease of somebody who has been silent since 1970."""
    long_ago = {"heartbeat_at": "1970-01-01T00:00:00+00:00"}
    store.backend.write(f"leases/{key}-0.json", Lease.begin("elsewhere", 7).model_copy(update=long_ago).encode())


def test_an_absent_store_has_nothing_and_is_not_made(command: Command, tmp_path: Path) -> None:
    code, out, err = command("status", tmp_path / "store")
    assert (code, err) == (0, "")
    assert "nothing runs and nothing is stored" in out
    assert not (tmp_path / "store").exists()


def test_a_finished_store_is_done_and_watching_it_ends(command: Command, finished: Path) -> None:
    code, out, err = command("status", finished, "--watch", "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    document = json.loads(out)
    assert (document["running"], document["stale"]) == ([], [])
    counts = {"cells": 10, "done": 10, "running": 0, "stale": 0, "failed": 0, "waiting": 0}
    assert document["suites"] == [{"suite": "micro", "version": 1, **counts}]
    assert json.loads(command("show", "--store", finished, "--json")[1])[0].items() >= counts.items()
    assert "done" in command("show", "--store", finished)[1]


def test_status_plan_and_show_say_what_runs_and_what_is_stale(
    command: Command, store: Store, plan: Plan, micro: Path
) -> None:
    first, second = plan.cells[0], plan.cells[1]
    leave_dead(store, second.key)
    with store.leases.hold(first.key) as hold:
        hold.watching(lambda fraction, what: None)(0.25, "epoch 1 of 4")
        hold.renew()
        _, out, _ = command("status", store.local, "--json")
        document = json.loads(out)
        (running,) = document["running"]
        assert (running["key"], running["fraction"], running["what"]) == (first.key, 0.25, "epoch 1 of 4")
        assert running["owner"]["pid"] == os.getpid()
        assert running["title"] == f"micro: {first.title}"
        assert [entry["key"] for entry in document["stale"]] == [second.key]
        suite = document["suites"][0]
        assert (suite["running"], suite["stale"], suite["done"], suite["waiting"]) == (1, 1, 0, 8)
        _, out, _ = command("status", store.local)
        assert f"(pid {os.getpid()})" in out and "25 %" in out and "epoch 1 of 4" in out
        _, out, _ = command("plan", micro, "--store", store.local, "--json")
        states = {cell["key"]: cell["state"] for cell in json.loads(out)["plan"]}
        assert (states[first.key], states[second.key]) == ("running", "stale")
        assert list(states.values()).count("pending") == 8
        _, out, _ = command("plan", micro, "--store", store.local)
        assert "1 running, 1 stale" in out
        _, out, err = command("show", "micro", "--store", store.local)
        assert "note: 0 of 10 cells done, 1 running, 1 stale" in err
        _, out, _ = command("show", "--store", store.local)
        assert "0 of 10 done, 1 running, 1 stale" in out
        _, out, _ = command("show", first.key[:12], "--store", store.local)
        assert "running" in out and "25 %: epoch 1 of 4" in out


def test_a_cell_that_no_suite_of_the_store_names_is_shown_by_its_key(command: Command, store: Store) -> None:
    with store.leases.hold("ab" * 32):
        _, out, _ = command("status", store.local)
    assert f"cell {'ab' * 6}" in out


def test_watching_ends_when_the_last_cell_has_its_result(command: Command, finished: Path) -> None:
    key = next(iter(Store.open(finished).records())).cell_key
    held, over = threading.Event(), threading.Event()

    def work() -> None:
        with Store.open(finished).leases.hold(key):
            held.set()
            over.wait(0.5)

    worker = threading.Thread(target=work)
    worker.start()
    held.wait(60)
    code, out, _ = command("status", finished, "--watch", "--every", "0.1", "--json")
    worker.join()
    looks = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [entry["key"] for entry in looks[0]["running"]] == [key]
    assert looks[-1]["running"] == []


@pytest.mark.parametrize("verb", ["run", "plan", "show", "status", "ls"])
def test_a_store_of_a_newer_version_is_refused_before_any_work(
    command: Command, micro: Path, tmp_path: Path, verb: str
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "store.json").write_text('{"schema_version": 2}')
    words = {"run": ["run", micro], "plan": ["plan", micro], "ls": ["ls", "results"]}.get(verb, [verb])
    code, out, err = command(*words, *([store] if verb == "status" else ["--store", store]))
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert f"{store}/store.json: written by a newer robusteval (schema 2, this one reads 1)" in err
    assert [file.name for file in store.iterdir()] == ["store.json"]


@pytest.mark.parametrize("mark", ["", "[]", "{", '{"schema_version": "1"}'])
def test_a_store_with_a_damaged_mark_is_refused(command: Command, tmp_path: Path, mark: str) -> None:
    (tmp_path / "store.json").write_text(mark)
    code, _, err = command("status", tmp_path)
    assert code == 3
    assert f"{tmp_path}/store.json: the mark of a store is damaged" in err


def test_a_run_into_a_place_that_cannot_be_written_is_refused_before_any_work(
    command: Command, micro: Path, tmp_path: Path
) -> None:
    (tmp_path / "leases").write_text("in the way")
    (tmp_path / "store.json").write_text('{"schema_version": 1}')
    code, out, err = command("run", micro, "--store", tmp_path)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert f"{tmp_path}/store.json: cannot be written" in err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["leases", "store.json"]
    assert command("plan", micro, "--store", tmp_path)[0] == 0


def test_a_missing_bucket_is_one_line_for_every_command(command: Command, micro: Path, bucket: str) -> None:
    place = f"{bucket}-not-there/results"
    for words in (["run", micro, "--store"], ["plan", micro, "--store"], ["show", "--store"], ["status"]):
        code, out, err = command(*words, place)
        assert (code, out) == (1, "")
        assert err == f"error: {place}: there is no bucket '{bucket[5:]}-not-there'; create it, or correct the name\n"
