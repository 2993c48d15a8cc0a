"""Leases: one owner at a time, a living one is never disturbed, a dead one is followed by exactly one other."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from robusteval.schema.errors import BusyError
from robusteval.store.backend import LocalBackend
from robusteval.store.lease import Lease, Rhythm, decode_lease
from robusteval.store.leases import Leases
from robusteval.store.progress import read_progress, survey
from robusteval.store.store import Store

KEY = "ab" * 32


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "store")


@pytest.fixture
def here(backend: LocalBackend, tmp_path: Path) -> Leases:
    return Leases(backend, tmp_path / "here")


@pytest.fixture
def there(backend: LocalBackend, tmp_path: Path) -> Leases:
    """Another machine: it has the store, and not the locks."""
    return Leases(backend, tmp_path / "there")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The clock of observers, in seconds."""
    present = SimpleNamespace(s=1000.0)
    monkeypatch.setattr("robusteval.store.lease.time", SimpleNamespace(monotonic=lambda: present.s))
    yield present


def names(backend: LocalBackend) -> list[str]:
    return sorted(backend.paths("leases"))


def leave_dead(backend: LocalBackend, number: int = 0, **changes: object) -> bytes:
    """The lease of an owner on a third machine that gives no sign of life any more."""
    lease = Lease.begin("nobody here knows this domain", 7).model_copy(update=changes)
    backend.write(f"leases/{KEY}-{number}.json", lease.encode())
    return lease.encode()


def is_free(leases: Leases) -> bool:
    try:
        with leases.hold(KEY):
            return True
    except BusyError:
        return False


@pytest.mark.parametrize("fails", [False, True])
def test_a_held_cell_is_busy_for_everybody_and_free_afterwards_also_after_a_failure(
    backend: LocalBackend, here: Leases, there: Leases, tmp_path: Path, fails: bool
) -> None:
    neighbour = Leases(backend, tmp_path / "here")
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext(), here.hold(KEY):
        assert not is_free(there)
        assert not is_free(neighbour)
        assert names(backend) == [f"leases/{KEY}-0.json"]
        if fails:
            raise ZeroDivisionError
    assert names(backend) == []
    assert is_free(there) and is_free(neighbour)


def test_an_owner_on_another_machine_is_dead_only_after_a_minute_in_which_nothing_was_seen_to_change(
    backend: LocalBackend, here: Leases, clock: SimpleNamespace
) -> None:
    lease = Lease.begin("elsewhere", 7)
    backend.write(f"leases/{KEY}-0.json", lease.encode())
    assert not is_free(here)
    clock.s += 59
    assert not is_free(here)
    backend.write(f"leases/{KEY}-0.json", lease.renewed(0.5, "epoch 2").encode())
    clock.s += 59
    assert not is_free(here)
    clock.s += 59
    assert not is_free(here)
    clock.s += 2
    assert is_free(here)
    assert names(backend) == []


@pytest.mark.parametrize("told", ["1970-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00", "yesterday"])
def test_what_the_owners_clock_says_never_decides_a_take_over(
    backend: LocalBackend, here: Leases, clock: SimpleNamespace, told: str
) -> None:
    leave_dead(backend, heartbeat_at=told)
    assert not is_free(here)
    assert here.seen()[KEY].state in ("running", "stale")
    clock.s += 61
    assert here.seen()[KEY].state == "stale"
    assert is_free(here)


def test_a_sighting_is_remembered_by_later_processes_of_the_same_machine(
    backend: LocalBackend, tmp_path: Path, clock: SimpleNamespace
) -> None:
    leave_dead(backend)
    assert not is_free(Leases(backend, tmp_path / "here"))
    clock.s += 61
    assert is_free(Leases(backend, tmp_path / "here"))


def _hold_forever(root: Path, local: Path, started: object) -> None:
    with Leases(LocalBackend(root), local).hold(KEY):
        started.set()  # type: ignore[attr-defined]
        signal.pause()


@pytest.fixture
def killed(backend: LocalBackend, tmp_path: Path) -> None:
    """A process of this machine was killed while it held the cell."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    owner = context.Process(target=_hold_forever, args=(backend.root, tmp_path / "here", started))
    owner.start()
    assert started.wait(60)
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()


def test_a_killed_owner_is_followed_at_once_on_its_own_machine_and_not_on_another(
    backend: LocalBackend, here: Leases, there: Leases, killed: None
) -> None:
    assert here.seen()[KEY].state == "stale"
    assert there.seen()[KEY].state == "running"
    assert not is_free(there)
    assert is_free(here)
    assert names(backend) == []


def test_what_a_killed_worker_held_can_be_cleared_and_what_others_hold_stays(
    backend: LocalBackend, here: Leases, there: Leases, killed: None
) -> None:
    other = "cd" * 32
    with there.hold(other):
        here.clear_dead([KEY, other, "ef" * 32])
        assert names(backend) == [f"leases/{other}-0.json"]


def test_of_many_takers_of_a_dead_owners_cell_exactly_one_wins(
    backend: LocalBackend, tmp_path: Path, clock: SimpleNamespace
) -> None:
    machines = [Leases(backend, tmp_path / f"machine{number}") for number in range(6)]
    for trial in range(15):
        leave_dead(backend, started_at=str(trial))
        assert not any(is_free(machine) for machine in machines)
        clock.s += 61
        begin, end = threading.Barrier(len(machines)), threading.Barrier(len(machines))
        winners: list[Leases] = []

        def take(machine: Leases, begin: threading.Barrier = begin, end: threading.Barrier = end) -> None:
            begin.wait()
            try:
                with machine.hold(KEY):
                    winners.append(machine)  # noqa: B023 - all of them end within this trial
                    end.wait()
            except BusyError:
                end.wait()

        takers = [threading.Thread(target=take, args=(machine,)) for machine in machines]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        assert len(winners) == 1
        assert names(backend) == []


class Meddling(LocalBackend):
    """Does something just before a blob is created."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: list[tuple[str, bytes | None]] = []

    def create(self, path: str, blob: bytes, *, durable: bool = True) -> bool:
        while self.before:
            place, content = self.before.pop(0)
            if content is None:
                self.delete(place)
            else:
                super().create(place, content)
        return super().create(path, blob, durable=durable)


@pytest.mark.parametrize("then", ["gone", "another's"])
def test_a_taker_withdraws_if_the_owner_came_back_and_left_at_the_last_moment(
    tmp_path: Path, clock: SimpleNamespace, then: str
) -> None:
    backend = Meddling(tmp_path / "store")
    here = Leases(backend, tmp_path / "here")
    leave_dead(backend)
    assert not is_free(here)
    clock.s += 61
    newer = Lease.begin("elsewhere", 8).encode()
    backend.before = [(f"leases/{KEY}-0.json", None)]
    backend.before += [(f"leases/{KEY}-0.json", newer)] if then == "another's" else []
    assert not is_free(here)
    assert names(backend) == ([f"leases/{KEY}-0.json"] if then == "another's" else [])


def test_a_newcomer_withdraws_from_a_taker_that_came_first(tmp_path: Path) -> None:
    backend = Meddling(tmp_path / "store")
    backend.before = [(f"leases/{KEY}-1.json", Lease.begin("elsewhere", 8).encode())]
    assert not is_free(Leases(backend, tmp_path / "here"))
    assert names(backend) == [f"leases/{KEY}-1.json"]


def test_an_owner_whose_cell_was_taken_over_notices_and_stops(
    backend: LocalBackend, here: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robusteval.store.leases.RHYTHM", Rhythm(renew_s=0.02))
    taken = threading.Event()
    with pytest.raises(BusyError, match="took the cell over"), here.hold(KEY) as hold:
        report = hold.watching(lambda fraction, what: None)
        report(0.1, "before")
        leave_dead(backend, number=1)
        for _ in range(500):
            report(0.2, "after")
            taken.wait(0.02)
    assert f"leases/{KEY}-1.json" in names(backend)


def test_a_lease_tells_what_runs_and_each_renewal_changes_it(backend: LocalBackend, here: Leases) -> None:
    with here.hold(KEY) as hold:
        told: list[tuple[float, str]] = []
        report = hold.watching(lambda fraction, what: told.append((fraction, what)))
        blobs = []
        for fraction in (0.25, 0.25, 1.0000001):
            report(fraction, "epoch 3")
            assert hold.renew()
            blobs.append(backend.read(f"leases/{KEY}-0.json"))
        assert len(set(blobs)) == 3
        seen = here.seen()[KEY]
        assert seen.lease is not None
        assert (seen.lease.fraction, seen.lease.what, seen.state) == (1.0, "epoch 3", "running")
        assert seen.lease.owner.pid == os.getpid()
        assert f"(pid {os.getpid()})" in seen.reason and "100 %: epoch 3" in seen.reason
    assert told == [(0.25, "epoch 3"), (0.25, "epoch 3"), (1.0000001, "epoch 3")]


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 2, "owner": "somebody"}'])
def test_a_lease_that_cannot_be_read_is_somebodys_until_it_has_been_silent(
    backend: LocalBackend, here: Leases, clock: SimpleNamespace, content: bytes
) -> None:
    backend.write(f"leases/{KEY}-0.json", content)
    assert decode_lease(content) is None
    assert not is_free(here)
    assert "another version" in here.seen()[KEY].reason
    clock.s += 61
    assert is_free(here)


def test_looking_at_an_absent_store_makes_nothing(tmp_path: Path) -> None:
    assert Store.open(tmp_path / "store").leases.seen() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_survey_says_who_is_at_a_cell_without_a_result(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    leave_dead(LocalBackend(tmp_path), heartbeat_at="1970-01-01T00:00:00+00:00")
    with store.leases.hold("cd" * 32):
        state = survey(store)
    assert [state(key)[0] for key in (KEY, "cd" * 32, "ef" * 32)] == ["stale", "running", "missing"]
    assert "the next run takes it over" in state(KEY)[1]
    document = json.loads((tmp_path / "leases" / f"{KEY}-0.json").read_bytes())
    assert document["owner"]["domain"] == "nobody here knows this domain"


def test_a_cell_of_which_a_share_is_measured_runs(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    leave_dead(LocalBackend(tmp_path), share_of="cd" * 32, heartbeat_at="1970-01-01T00:00:00+00:00")
    assert survey(store)("cd" * 32)[0] == "stale"
    with store.leases.hold("ef" * 32, share_of="cd" * 32):
        assert survey(store)("cd" * 32)[0] == "running"
        shown = [cell.title for cell in read_progress(store).cells]
    assert shown == [f"cell {'cd' * 6} (a share)"] * 2
