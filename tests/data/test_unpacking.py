"""Unpacking: whole or not at all, and nothing outside the folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from robusteval.data.unpacking import is_archive, is_unpacked, unpack
from robusteval.schema.errors import DataError


def archive(path: Path, members: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            file.addfile(info)
    return path


def test_contents_come_into_the_folder_and_replace_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "data" / "set" / "half.bin").write_bytes(b"left behind")
    source = archive(tmp_path / "set.tar.gz", {"set/a.bin": b"a", "set/b/c.bin": b"c"})
    assert unpack(source, tmp_path / "data") == [tmp_path / "data" / "set"]
    found = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.bin")}
    assert found == {"set/a.bin", "set/b/c.bin"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"set", ".set.tar.gz.unpacked"}


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/outside.bin"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path / "set.tar.gz", {"set/a.bin": b"a", name: b"x"})
    if name.startswith("/"):
        # The filter takes the slash away; what is then inside stays inside.
        assert (tmp_path / "data" / "etc" / "outside.bin") in [
            path for top in unpack(source, tmp_path / "data") for path in top.rglob("*")
        ]
        return
    with pytest.raises(DataError, match=r"set\.tar\.gz: holds something that does not belong into a dataset"):
        unpack(source, tmp_path / "data")
    assert not (tmp_path / "outside.bin").exists()
    assert list((tmp_path / "data").iterdir()) == []


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "set.tar.gz", {"set/a.bin": b"a"}, links={"set/link": "../../../etc/passwd"})
    with pytest.raises(DataError, match="does not belong into a dataset"):
        unpack(source, tmp_path / "data")


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    source = archive(tmp_path / "set.tar.gz", {"set/a.bin": bytes(range(256)) * 400})
    whole = source.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:40], b"no archive", b""):
        source.write_bytes(content)
        (tmp_path / "data").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"set\.tar\.gz: is no whole archive .*; remove it and fetch it again"):
            unpack(source, tmp_path / "data")
        assert list((tmp_path / "data").iterdir()) == []


def test_only_archives_are_unpacked() -> None:
    assert is_archive(Path("x.tar.gz"))
    assert is_archive(Path("x.tar"))
    assert not is_archive(Path("x.npy"))


def test_what_was_unpacked_is_known_until_a_part_of_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert not is_unpacked("set.tar.gz", folder)
    unpack(archive(tmp_path / "set.tar.gz", {"fog/a.bin": b"a", "snow/b.bin": b"b"}), folder)
    assert is_unpacked("set.tar.gz", folder)
    assert not is_unpacked("other.tar.gz", folder)
    (folder / "snow" / "b.bin").unlink()
    (folder / "snow").rmdir()
    assert not is_unpacked("set.tar.gz", folder)
