"""What a lease says, and how long this machine has seen it say so.

Clocks of machines differ, so the time written in a lease is for people. Whether its owner lives is told by watching: an
owner that renews changes the blob every few seconds, and a blob that has not changed for the whole patience of an
observer, by the observer's own clock, belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import json
import platform
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from robusteval.schema.digest import sha256_hex
from robusteval.schema.types import Fraction01, Frozen, NonNegativeInt
from robusteval.store.atomic import create_atomically, write_atomically


@dataclass(frozen=True)
class Rhythm:
    """How often a lease is renewed and how long its silence is borne.

    Attributes:
        renew_s: seconds between two signs of life.
        stale_s: seconds of silence after which an owner is taken for dead.
    """

    renew_s: float = 5.0
    stale_s: float = 60.0


class Owner(Frozen):
    """Who executes a cell."""

    host: str
    """Name of the machine."""
    pid: NonNegativeInt
    """Process."""
    id: str
    """Random, one for each lease."""
    domain: str
    """Whoever shares it shares the file locks of this owner; empty if there are none."""


class Lease(Frozen):
    """A cell under way."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    owner: Owner
    """Who is at it."""
    started_at: str
    """UTC by the owner's clock, ISO 8601."""
    heartbeat_at: str
    """When it was renewed last, likewise."""
    beats: NonNegativeInt = 0
    """Number of renewals: each one changes the blob, whatever the clock does."""
    what: str = ""
    """What runs now, in a few words."""
    fraction: Fraction01 = 0.0
    """Finished fraction."""
    share_of: str = ""
    """Key of the cell of which only a share of the examples is measured; empty for a whole cell."""

    @classmethod
    def begin(cls, domain: str, pid: int, share_of: str = "") -> Lease:
        """A new lease of this process."""
        owner = Owner(host=platform.node(), pid=pid, id=secrets.token_hex(16), domain=domain)
        return cls(owner=owner, started_at=now(), heartbeat_at=now(), share_of=share_of)

    def renewed(self, fraction: float, what: str) -> Lease:
        """The next sign of life."""
        fraction = min(max(fraction, 0.0), 1.0)
        update = {"heartbeat_at": now(), "beats": self.beats + 1, "fraction": fraction, "what": what[:200]}
        return self.model_copy(update=update)

    def encode(self) -> bytes:
        """The lease as the bytes of its blob."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def silence_s(self) -> float:
        """Seconds since the last sign of life, if the clocks of both machines agree."""
        try:
            told = datetime.fromisoformat(self.heartbeat_at)
        except ValueError:
            return 0.0
        return (datetime.now(UTC) - told.astimezone(UTC)).total_seconds()


def decode_lease(blob: bytes) -> Lease | None:
    """The lease in a blob; None if it is none that this version reads, which still is somebody's."""
    try:
        return Lease.model_validate_json(blob)
    except ValueError:
        return None


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Silence:
    """How long a lease has said the same.

    Attributes:
        seconds: since when at least this machine has seen the same blob, by its own clock.
        heard: whether this machine saw it change before.
    """

    seconds: float
    heard: bool


class Sightings:
    """When this machine first saw each lease as it is now; kept in files, for observers come and go.

    Args:
        folder: of the locks; a file holds for one boot of one machine, so that a shared folder may hold several.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ending = f".{boot_id()[:12]}.seen"

    def silence(self, key: str, blob: bytes) -> Silence:
        """Note how the lease of a cell looks now, and tell since when it has looked so."""
        mark, present = sha256_hex(blob), time.monotonic()
        before, at, heard = self._recall(key)
        if before == mark:
            return Silence(max(present - at, 0.0), heard)
        heard = before is not None
        document = json.dumps({"mark": mark, "at": present, "heard": heard})
        with contextlib.suppress(OSError):  # a reader without the right to write cannot remember
            write_atomically(self._file(key), document.encode(), durable=False)
        return Silence(0.0, heard)

    def forget(self, key: str) -> None:
        """The lease of a cell is gone, or one's own."""
        with contextlib.suppress(OSError):
            self._file(key).unlink(missing_ok=True)

    def keep(self, keys: Collection[str]) -> None:
        """Forget all leases but those of these cells."""
        for file in self._folder.glob(f"*{self._ending}"):
            key = file.name.removesuffix(self._ending)
            if key not in keys:
                self.forget(key)

    def _recall(self, key: str) -> tuple[str | None, float, bool]:
        try:
            document = json.loads(self._file(key).read_bytes())
            return str(document["mark"]), float(document["at"]), bool(document["heard"])
        except (OSError, ValueError, KeyError, TypeError):
            return None, 0.0, False

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}{self._ending}"


def boot_id() -> str:
    """A name for this machine since it was started, within which `time.monotonic` counts on."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        text = platform.node()
    return sha256_hex(text.strip().encode())


def lock_domain(folder: Path) -> str:
    """A name that two processes share if a file lock in `folder` keeps one of them out while the other holds it.

    That is so for one kernel and one folder. A folder that several machines or containers see under one name, or
    several folders of one machine, differ in one of the two.
    """
    file = folder / ".domain"
    try:
        if not file.exists():
            create_atomically(file, secrets.token_hex(16).encode(), durable=False)
        token = file.read_bytes()
    except OSError:
        return ""
    return sha256_hex(boot_id().encode() + token)[:32]
