"""What a worker does with one share of an evaluation, and with all of them: through the store, from any machine.

shards/<kk>/<key>/<i>of<n>.share            what a share found (kk: first two characters of the cell's key)
shards/<kk>/<key>/<i>of<n>-<number>.share   adversarial images of a share, where they are kept

Both begin with a line of JSON that names the cell and the digest of what follows. They are deleted once the cell has
its record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from robusteval.evaluators.adversarial_images import saved_parts
from robusteval.evaluators.shard_file import ShardFile, decode_shard
from robusteval.execution.events import CellTask
from robusteval.execution.work import measure_share, put_together
from robusteval.schema.cells import EvalCell
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CorruptRecordError, StoreError
from robusteval.schema.records import Evaluation
from robusteval.schema.shards import Shard
from robusteval.schema.types import Digest, Frozen, NonNegativeFloat, Progress
from robusteval.store.scratch import Scratch
from robusteval.store.store import Store


class _Header(Frozen):
    """First line of a file."""

    cell: Digest
    """Key of the cell."""
    digest: Digest
    """SHA-256 of what follows."""
    wall_s: NonNegativeFloat
    """Seconds that the share took."""


class ShardBox:
    """The shares of one cell in the store.

    Args:
        store: the store.
        key: key of the cell.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._backend, self._key = store.backend, key

    def put(self, file: ShardFile, scratch: Scratch, wall_s: float) -> None:
        """Store what a share found; the images that its scratch space holds first."""
        shard = file.found.shard
        for number, blob in enumerate(saved_parts(scratch)):
            self._write(_name(shard, number), blob, 0.0)
        self._write(_name(shard), file.encode(), wall_s)

    def has(self, shard: Shard) -> bool:
        """Whether a share is there, whole and undamaged."""
        try:
            list(self.images(self.get(shard)[0]))
        except StoreError:
            return False
        return True

    def get(self, shard: Shard) -> tuple[ShardFile, float]:
        """What a share found, and the seconds that it took.

        Raises:
            StoreError: it is missing.
            CorruptRecordError: it is damaged, or of another cell.
        """
        blob, header = self._read(_name(shard), f"share {shard}")
        try:
            file = decode_shard(blob)
        except CorruptRecordError as error:
            raise CorruptRecordError(f"{self._where(_name(shard))}: {error}; delete it and run again") from None
        if file.found.shard != shard:
            raise CorruptRecordError(
                f"{self._where(_name(shard))}: holds share {file.found.shard}; delete it and run again"
            )
        return file, header.wall_s

    def images(self, file: ShardFile) -> Iterator[bytes]:
        """Files of adversarial images of a share.

        Raises:
            StoreError: one is missing.
            CorruptRecordError: one is damaged.
        """
        for number in range(file.found.images):
            yield self._read(_name(file.found.shard, number), f"images {number + 1} of share {file.found.shard}")[0]

    def clear(self) -> None:
        """Delete everything, whatever the number of shares was."""
        for path in list(self._backend.paths(self._folder)):
            self._backend.delete(path)

    @property
    def _folder(self) -> str:
        return f"shards/{self._key[:2]}/{self._key}"

    def _where(self, name: str) -> str:
        return self._backend.locate(f"{self._folder}/{name}")

    def _write(self, name: str, blob: bytes, wall_s: float) -> None:
        header = _Header(cell=self._key, digest=sha256_hex(blob), wall_s=wall_s)
        self._backend.write(f"{self._folder}/{name}", header.model_dump_json().encode() + b"\n" + blob)

    def _read(self, name: str, what: str) -> tuple[bytes, _Header]:
        where = self._where(name)
        try:
            blob = self._backend.read(f"{self._folder}/{name}")
        except OSError as error:
            raise CorruptRecordError(f"{where}: {what} cannot be read ({error.strerror or error})") from None
        if blob is None:
            raise StoreError(f"{where}: {what} of cell {self._key[:12]} is missing; run again to measure it")
        line, _, rest = blob.partition(b"\n")
        try:
            header = _Header.model_validate(json.loads(line))
        except (ValueError, RecursionError, ValidationError):
            raise CorruptRecordError(f"{where}: {what} is damaged; run again to measure it anew") from None
        if header.cell != self._key or header.digest != sha256_hex(rest):
            raise CorruptRecordError(f"{where}: {what} is damaged; run again to measure it anew")
        return rest, header


def measure_into_box(
    cell: EvalCell, task: CellTask, store: Store, progress: Progress, elapsed: Callable[[], float]
) -> None:
    """Measure the share that a task asks for and store it under the cell's key, unless it is there.

    Args:
        cell: the cell.
        task: its share, whose own key names the scratch space.
        store: where the model is and the share goes.
        progress: told the finished fraction and what runs now.
        elapsed: gives the seconds spent on the share.
    """
    assert task.shard is not None
    box, scratch = ShardBox(store, cell.key), store.scratch(task.key)
    if box.has(task.shard):
        return
    file = measure_share(cell, task.shard, scratch, store, task.device, progress)
    box.put(file, scratch, elapsed())


def merge_from_box(cell: EvalCell, count: int, store: Store) -> tuple[Evaluation, float]:
    """Put all `count` shares of a cell together, without a pass.

    Returns:
        The evaluation, and the seconds that the shares took together.

    Raises:
        StoreError: a share is missing; it is named.
        CorruptRecordError: one is damaged; it is named.
    """
    box = ShardBox(store, cell.key)
    found = [box.get(Shard(index=index, count=count)) for index in range(count)]
    evaluation = put_together(cell, [file for file, _ in found], box.images, store)
    return evaluation, sum(seconds for _, seconds in found)


def _name(shard: Shard, images: int | None = None) -> str:
    return f"{shard}.share" if images is None else f"{shard}-{images:05d}.share"
