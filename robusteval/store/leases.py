"""Leases: the mark that somebody executes a cell, so that nobody else does, and that a dead owner's cell is taken over.

A lease is a blob `leases/<key>-<n>.json`, made by create-only writes alone, which every backend has. The first owner
creates number 0; whoever takes over from a dead owner of number n creates n + 1, so of several takers exactly one wins.
The highest number is the lease. Releasing deletes from the highest down.

On one machine the file lock is the truth: the system drops it when a process dies, so a lease whose owner used the same
locks is taken over at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from filelock import FileLock, Timeout

from robusteval.schema.errors import BusyError, UnreachableError
from robusteval.schema.types import Progress
from robusteval.store.backend import Backend
from robusteval.store.lease import Lease, Rhythm, Sightings, decode_lease, lock_domain

RHYTHM = Rhythm()
"""The rhythm of every lease; observers must be more patient than owners are lazy, so it is one constant."""

_NAME = re.compile(r"([0-9a-f]{64})-([0-9]{1,6})\.json")


@dataclass(frozen=True)
class SeenLease:
    """A lease as an observer sees it.

    Attributes:
        key: the cell, or the share of one.
        lease: what it says; None if this version cannot read it.
        state: `running`, or `stale` if its owner is dead.
        silent_s: seconds without a sign of life, as far as this machine knows.
    """

    key: str
    lease: Lease | None
    state: Literal["running", "stale"]
    silent_s: float

    @property
    def cell(self) -> str:
        """Key of the cell, also for a share of it."""
        return (self.lease.share_of if self.lease is not None else "") or self.key

    @property
    def owner(self) -> str:
        """Who is at it, in words."""
        return f"{self.lease.owner.host} (pid {self.lease.owner.pid})" if self.lease is not None else "an unknown owner"

    @property
    def reason(self) -> str:
        """The state in words."""
        if self.state == "stale":
            return f"{self.owner} died with it; the next run takes it over"
        if self.lease is None:
            return "by an owner with another version of robusteval"
        done = f"{100 * self.lease.fraction:.0f} %"
        what = f": {self.lease.what}" if self.lease.what else ""
        return f"by {self.owner} since {self.lease.started_at}, {done}{what}"


class Leases:
    """Who executes which cell of a store.

    Args:
        backend: where the leases live.
        local: folder of this machine whose `locks` decide among its processes.
    """

    def __init__(self, backend: Backend, local: Path) -> None:
        self._backend = backend
        self._locks = local / "locks"
        self._sightings = Sightings(self._locks)
        self._domain: str | None = None

    @contextlib.contextmanager
    def hold(self, key: str, *, wait: bool = False, share_of: str = "") -> Iterator[Hold]:
        """Be the only one who executes a cell, on this machine and on all others.

        Args:
            key: the cell, or a share of one.
            wait: whether to wait while somebody else is at it.
            share_of: the cell, if `key` is a share of it.

        Raises:
            BusyError: somebody else is at it.
            OSError: the store cannot be written.
        """
        lock = self._lock(key)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            raise BusyError("another run is at it") from None
        try:
            while (hold := self._take(key, share_of)) is None:
                if not wait:
                    raise BusyError("another run is at it")
                time.sleep(RHYTHM.renew_s)
            with hold:
                yield hold
        finally:
            lock.release()

    def seen(self) -> dict[str, SeenLease]:
        """Every lease of the store by cell, as it looks from here.

        A lease that this machine sees for the first time is judged by the time written in it; that may be wrong where
        clocks differ, and is for people only.
        """
        highest: dict[str, int] = {}
        for path in self._backend.paths("leases"):
            match = _NAME.fullmatch(PurePosixPath(path).name)
            if match is not None:
                highest[match[1]] = max(int(match[2]), highest.get(match[1], 0))
        found = {}
        for key, number in sorted(highest.items()):
            blob = self._backend.read(_path(key, number))
            if blob is not None:
                found[key] = self._judge(key, blob)
        self._sightings.keep(found)
        return found

    def clear_dead(self, keys: Iterable[str]) -> None:
        """Release what processes of this machine held that were killed; leases of others stay."""
        for key in keys:
            with contextlib.suppress(Timeout, OSError, UnreachableError), self._lock(key).acquire(blocking=False):
                number, blob = self._current(key)
                if blob is not None and self._is_ours(decode_lease(blob)):
                    self._release(key, number)

    def _judge(self, key: str, blob: bytes) -> SeenLease:
        lease = decode_lease(blob)
        free = self._is_free(key) if self._is_ours(lease) else None
        if free is not None:
            return SeenLease(key, lease, "stale" if free else "running", 0.0)
        silence = self._sightings.silence(key, blob)
        told = lease.silence_s() if lease is not None and not silence.heard else 0.0
        silent_s = max(silence.seconds, told)
        return SeenLease(key, lease, "stale" if silent_s >= RHYTHM.stale_s else "running", silent_s)

    def _is_ours(self, lease: Lease | None) -> bool:
        """Whether the owner used the same file locks as this process."""
        if self._domain is None:
            self._domain = lock_domain(self._locks)
        return lease is not None and lease.owner.domain == self._domain != ""

    def _is_free(self, key: str) -> bool | None:
        """Whether nobody holds the lock of a cell; None if this process may not look."""
        try:
            with self._lock(key).acquire(blocking=False):
                return True
        except Timeout:
            return False
        except OSError:
            return None

    def _lock(self, key: str) -> FileLock:
        """The lock that the system releases when its holder dies."""
        self._locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self._locks / f"{key}.lock")

    def _take(self, key: str, share_of: str) -> Hold | None:
        """Take the lease of a cell whose file lock this process holds; None if somebody lives with it."""
        number, blob = self._current(key)
        ours = self._is_ours(None if blob is None else decode_lease(blob))
        if blob is not None and not ours and self._sightings.silence(key, blob).seconds < RHYTHM.stale_s:
            return None
        mine = number + 1
        lease = Lease.begin(self._domain or "", os.getpid(), share_of)
        if not self._backend.create(_path(key, mine), lease.encode(), durable=False):
            return None
        # While we took it, the owner may have come back, finished, and made room for somebody who created number 0.
        # Either they see ours or we see theirs, so at least one of the two withdraws.
        if self._backend.read(_path(key, mine + 1)) is not None or (
            blob is not None and self._backend.read(_path(key, number)) != blob
        ):
            self._backend.delete(_path(key, mine))
            return None
        self._sightings.forget(key)
        return Hold(self._backend, key, mine, lease)

    def _current(self, key: str) -> tuple[int, bytes | None]:
        """The highest lease of a cell, with its number; -1 and None if there is none."""
        number, blob = -1, None
        while (found := self._backend.read(_path(key, number + 1))) is not None:
            number, blob = number + 1, found
        return number, blob

    def _release(self, key: str, number: int) -> None:
        for one in range(number, -1, -1):
            self._backend.delete(_path(key, one))
        self._sightings.forget(key)


class Hold:
    """A lease that this process has; a thread renews it while the `with` block runs.

    Args:
        backend: where the lease lives.
        key: the cell.
        number: number of the lease.
        lease: what it says at first.
    """

    def __init__(self, backend: Backend, key: str, number: int, lease: Lease) -> None:
        self._backend = backend
        self._key = key
        self._number = number
        self._lease = lease
        self._now = (0.0, "")
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name=f"lease {key[:12]}", daemon=True)

    def watching(self, progress: Progress) -> Progress:
        """A progress function that also tells the lease; it raises `BusyError` once the lease is lost."""

        def report(fraction: float, what: str) -> None:
            self._now = (fraction, what)
            if self._lost.is_set():
                raise BusyError("this process was silent for so long that another run took the cell over")
            progress(fraction, what)

        return report

    def renew(self) -> bool:
        """Give a sign of life; False if the lease is somebody else's by now."""
        blob = self._backend.read(_path(self._key, self._number))
        there = None if blob is None else decode_lease(blob)
        taken = self._backend.read(_path(self._key, self._number + 1)) is not None
        if taken or there is None or there.owner != self._lease.owner:
            return False
        self._lease = self._lease.renewed(*self._now)
        self._backend.write(_path(self._key, self._number), self._lease.encode(), durable=False)
        return True

    def __enter__(self) -> Hold:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        # A lease that stays behind only makes others wait; a result that is stored must not be reported as failed.
        with contextlib.suppress(OSError, UnreachableError):
            if not self._lost.is_set():
                for number in range(self._number, -1, -1):
                    self._backend.delete(_path(self._key, number))

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RHYTHM.renew_s):
            with contextlib.suppress(OSError, UnreachableError):  # the next beat tries again
                if not self.renew():
                    self._lost.set()
                    return


def _path(key: str, number: int) -> str:
    return f"leases/{key}-{number}.json"
