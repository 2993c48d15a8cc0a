"""Verification: what changed, went or came since the first time is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robusteval.data.verify import FileChanges, verify_files
from robusteval.schema.errors import CorruptRecordError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.bin", "a/2.bin", "b/3.bin", ".hidden/4.bin"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "data"


def verified(root: Path, *, accept: bool = False) -> FileChanges:
    return verify_files(root, root.parent / "cache", lambda done, total: None, accept=accept)


def test_the_first_time_writes_a_list_and_the_second_compares(root: Path) -> None:
    first, second = verified(root), verified(root)
    assert (first.first, second.first) == (True, False)
    assert first.same
    assert second.same
    assert first.files == 3
    assert first.size == sum(len(name) for name in ("a/1.bin", "a/2.bin", "b/3.bin"))


def test_every_change_is_named_even_with_the_old_time(root: Path) -> None:
    verified(root)
    stat = (root / "a" / "1.bin").stat()
    (root / "a" / "1.bin").write_bytes(b"x/1.bin")
    os.utime(root / "a" / "1.bin", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (root / "a" / "2.bin").unlink()
    (root / "b" / "5.bin").write_bytes(b"")
    found = verified(root)
    assert (found.changed, found.missing, found.added) == (("a/1.bin",), ("a/2.bin",), ("b/5.bin",))
    assert not found.same
    assert not verified(root).same
    assert verified(root, accept=True).same
    assert verified(root).same


def test_a_damaged_list_is_named_and_not_replaced(root: Path) -> None:
    listing = verified(root).listing
    damaged = listing.read_bytes()[:-2]
    listing.write_bytes(damaged)
    with pytest.raises(CorruptRecordError, match="list of digests is damaged; delete it to verify afresh"):
        verified(root)
    assert listing.read_bytes() == damaged


def test_parts_that_are_linked_together_are_verified(root: Path) -> None:
    (root.parent / "elsewhere" / "c").mkdir(parents=True)
    (root.parent / "elsewhere" / "c" / "6.bin").write_bytes(b"6")
    (root / "val").symlink_to(root.parent / "elsewhere")
    (root / "top.bin").write_bytes(b"7")
    assert verified(root).files == 5
    (root.parent / "elsewhere" / "c" / "6.bin").write_bytes(b"x")
    assert verified(root).changed == ("val/c/6.bin",)
