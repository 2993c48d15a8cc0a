"""Every backend keeps the same promises, and a bucket keeps them over a network that fails a fifth of the calls."""

from __future__ import annotations

import importlib
import random
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.schema.errors import StoreError, UnreachableError, UsageError
from robusteval.store.backend import Backend, LocalBackend
from robusteval.store.object_backend import ObjectBackend
from robusteval.store.store import Store

fsspec = pytest.importorskip("fsspec", reason="fsspec is what a store in a bucket stands on")

NO_PAUSES = (0.0,) * 12


def memory() -> Any:
    return fsspec.filesystem("memory", skip_instance_cache=True)


class Failing:
    """A filesystem that fails a share of its calls, half of them after they were carried out.

    Args:
        filesystem: the one that works.
        share: of calls that fail.
    """

    def __init__(self, filesystem: Any, share: float) -> None:
        self._filesystem, self._share = filesystem, share
        self._random = random.Random(7)
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._filesystem, name)
        if not callable(method) or name.startswith("_"):
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            draw = self._random.random() / self._share
            if draw < 0.5:
                self.failed += 1
                raise OSError(121, "the service is having a moment")
            found = method(*arguments, **options)
            if draw < 1.0:
                self.failed += 1
                raise TimeoutError("the answer was lost")
            return found

        return call

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        self.__getattr__("pipe_file")(path, value, mode=mode)


class Unconditional(Failing):
    """A filesystem without create-only writes."""

    def pipe_file(self, path: str, value: bytes) -> None:  # type: ignore[override]
        self.__getattr__("pipe_file")(path, value)


class Refusing(Failing):
    """A service that knows the condition of a write and does not support it."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(38, "NotImplemented")
        super().pipe_file(path, value)


def in_memory(wrap: Callable[[Any], Any] = lambda filesystem: filesystem) -> ObjectBackend:
    root = f"bucket{secrets.token_hex(4)}/store"
    return ObjectBackend(wrap(memory()), root, f"memory://{root}", pauses_s=NO_PAUSES)


BACKENDS: dict[str, Callable[[], ObjectBackend]] = {
    "memory": in_memory,
    "failing": lambda: in_memory(lambda filesystem: Failing(filesystem, 0.2)),
    "unconditional": lambda: in_memory(lambda filesystem: Unconditional(filesystem, 0.2)),
    "refusing": lambda: in_memory(lambda filesystem: Refusing(filesystem, 0.2)),
}


@pytest.fixture(params=["local", "s3", *BACKENDS])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "local":
        return LocalBackend(tmp_path)
    if request.param == "s3":
        return Store.open(f"{request.getfixturevalue('bucket')}/some/folder").backend
    return BACKENDS[request.param]()


def test_a_backend_keeps_its_promises(backend: Backend) -> None:
    backend.check()
    assert backend.read("a/b.json") is None
    assert not backend.exists("a/b.json")
    assert list(backend.paths("a")) == []
    assert backend.create("a/b.json", b"one")
    assert not backend.create("a/b.json", b"two")
    assert backend.read("a/b.json") == b"one"
    backend.write("a/b.json", b"three")
    backend.write("a/c/d.json", b"")
    assert backend.read("a/b.json") == b"three"
    assert backend.read("a/c/d.json") == b""
    assert backend.exists("a/c/d.json")
    backend.write("ab.json", b"not below a")
    assert sorted(backend.paths("a")) == ["a/b.json", "a/c/d.json"]
    backend.displace("a/b.json", "damaged/b.json")
    assert sorted(backend.paths("a")) == ["a/c/d.json"]
    assert backend.read("damaged/b.json") == b"three"
    backend.delete("a/c/d.json")
    backend.delete("a/c/d.json")
    assert list(backend.paths("a")) == []
    assert backend.locate("a/b.json").endswith("/a/b.json")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", ""])
def test_a_path_that_leaves_the_store_is_refused(path: str) -> None:
    with pytest.raises(StoreError):
        in_memory().write(path, b"")


@pytest.mark.parametrize("kind", ["s3", "memory", "failing"])
def test_of_writers_that_create_one_blob_at_once_exactly_one_wins(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "s3":
        backend: Backend = Store.open(request.getfixturevalue("bucket")).backend
    else:
        backend = BACKENDS[kind]()
    for trial in range(2 if kind == "s3" else 10):
        begin = threading.Barrier(4)
        winners: list[bytes] = []

        def create(mark: bytes, begin: threading.Barrier = begin, path: str = f"r/{trial}") -> None:
            begin.wait()
            if backend.create(path, mark):
                winners.append(mark)  # noqa: B023 - all of them end within this trial

        writers = [threading.Thread(target=create, args=(bytes([number]),)) for number in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert winners == [backend.read(f"r/{trial}")]


def test_a_service_that_fails_for_good_is_named_and_not_asked_for_ever() -> None:
    filesystem = Failing(memory(), 1e-9)
    backend = ObjectBackend(filesystem, "lab/x", "s3://lab/x", pauses_s=(0.0, 0.0))
    filesystem._share = 1e9
    for attempt in (
        backend.check,
        lambda: backend.read("a"),
        lambda: backend.exists("a"),
        lambda: backend.write("a", b""),
        lambda: backend.create("a", b""),
        lambda: list(backend.paths("a")),
    ):
        before = filesystem.failed
        with pytest.raises(UnreachableError, match="s3://lab/x: cannot be reached"):
            attempt()
        assert filesystem.failed - before <= 9


def test_a_refusal_is_named_at_once() -> None:
    class Forbidding(Failing):
        def info(self, path: str) -> Any:
            self.failed += 1
            raise PermissionError("Forbidden")

    filesystem = Forbidding(memory(), 1e-9)
    backend = ObjectBackend(filesystem, "lab/x", "s3://lab/x", pauses_s=(0.0,) * 5)
    with pytest.raises(UnreachableError, match=r"s3://lab/x: refused \(Forbidden\)"):
        backend.check()
    assert filesystem.failed == 1


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///folder", "s3://bucket/../x", "s3://bucket/a?b", "s3://key:secret@bucket/x", "gs://b/a b"]
)
def test_a_uri_that_is_no_place_in_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="is no place in a bucket"):
        Store.open(uri)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_without_its_package_a_scheme_names_what_to_install(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, scheme, raising=False)
    with pytest.raises(UsageError, match=rf"{scheme}://bucket/x.*pip install 'robusteval\[cloud\]'") as caught:
        Store.open(f"{scheme}://bucket/x")
    assert package in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_store_has_one_uri_however_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    stores = [Store.open(uri) for uri in ("memory://lab/x", "memory://lab/x/", "memory://lab//x")]
    assert {store.uri for store in stores} == {"memory://lab/x"}
    assert len({store.local for store in stores}) == 1
    assert stores[0].local.is_relative_to(tmp_path)
    assert Store.open("memory://lab/y").local != stores[0].local


def test_an_artefact_crosses_the_network_once_and_a_damaged_copy_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    uri = f"memory://lab{secrets.token_hex(4)}"
    digest = Store.open(uri).put_artefact(b"weights")
    copies = list((tmp_path / ".cache/robusteval/artefacts").rglob(digest))
    assert len(copies) == 1
    store = Store.open(uri)
    reads: list[str] = []
    read = store.backend.read
    monkeypatch.setattr(store.backend, "read", lambda path: reads.append(path) or read(path))
    assert store.get_artefact(digest) == b"weights"
    assert reads == []
    copies[0].write_bytes(b"weighty")
    assert store.get_artefact(digest) == b"weights"
    assert len(reads) == 1
    assert copies[0].read_bytes() == b"weights"
    store.backend.delete(reads[0])
    with pytest.raises(StoreError, match="missing"):
        store.check_artefact(digest)


def test_a_missing_bucket_is_named(bucket: str) -> None:
    store = Store.open(f"{bucket}-not-there/x")
    for attempt in (store.check, store.check_writable, lambda: store.put_artefact(b"w")):
        with pytest.raises(UnreachableError, match=f"there is no bucket '{bucket[5:]}-not-there'"):
            attempt()


@pytest.fixture
def afresh(bucket: str) -> Iterator[str]:
    """The bucket, for a process that has not connected yet."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield bucket
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_endpoint_that_does_not_answer_is_named(afresh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"cannot be reached \(.*127\.0\.0\.1:9"):
        Store.open(f"{afresh}/dead").check()


def test_missing_credentials_are_named(afresh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UnreachableError, match=r"refused .*credentials"):
        Store.open(f"{afresh}/x").check()
