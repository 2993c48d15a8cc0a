"""Downloads from a server on this machine: they resume, are checked, and never leave a wrong file behind."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from robusteval.data.catalogue import Download
from robusteval.data.fetching import fetch
from robusteval.schema.errors import DataError

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@dataclass
class Server:
    """What the server does, and what it was asked.

    Attributes:
        address: `http://...`.
        content: what it serves.
        cuts: after how many bytes it ends each of the next answers.
        ranges: whether it can start in the middle.
        page: answer with a web page.
        asked: the Range header of every request.
    """

    address: str = ""
    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    page: bool = False
    asked: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.headers.get("Range"))
        if request.path == "/gone":
            request.send_error(404)
            return
        body, start = (b"<!DOCTYPE html><p>quota exceeded", 0) if self.page else (self.content, self._start())
        if start >= len(body) > 0 and start:
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        request.wfile.write(body[start : start + self.cuts.pop(0)] if self.cuts else body[start:])

    def _start(self) -> int:
        asked = self.asked[-1]
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    plan = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            plan.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        plan.address = f"http://127.0.0.1:{running.server_address[1]}/file.tar"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield plan
        running.shutdown()
        thread.join()


Get = Callable[[], Path]


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Get:
    return lambda: fetch(Download(server.address, "file.tar", DIGEST), tmp_path, lambda done, total: None)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_file_is_downloaded_once(server: Server, get: Get, tmp_path: Path) -> None:
    assert get().read_bytes() == CONTENT
    assert get().read_bytes() == CONTENT
    assert server.asked == [None]
    assert names(tmp_path) == {"file.tar"}


def test_a_broken_connection_is_taken_up_where_it_ended(server: Server, get: Get) -> None:
    server.cuts = [100_000, 50_000]
    assert get().read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_what_came_before_giving_up_is_kept_for_the_next_time(server: Server, get: Get, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(DataError, match="after 3000 of 300000 bytes; run the command again to go on from there"):
        get()
    assert names(tmp_path) == {"file.tar.part"}
    assert get().read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=3000-"


def test_a_server_that_cannot_start_in_the_middle_sends_everything_again(server: Server, get: Get) -> None:
    server.cuts, server.ranges = [1000], False
    assert get().read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


def test_a_wrong_checksum_is_refused_and_the_file_removed(server: Server, get: Get, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=r"file\.tar\.part: has sha256 .*, not .*it was removed; run the command again"):
        get()
    assert names(tmp_path) == set()


def test_leftovers_of_another_version_are_noticed(server: Server, get: Get, tmp_path: Path) -> None:
    (tmp_path / "file.tar.part").write_bytes(b"y" * 1000)
    with pytest.raises(DataError, match="it was removed"):
        get()
    assert get().read_bytes() == CONTENT
    (tmp_path / "file.tar").unlink()
    (tmp_path / "file.tar.part").write_bytes(CONTENT + b"too much")
    assert get().read_bytes() == CONTENT


def test_a_web_page_instead_of_the_file_is_refused(server: Server, get: Get, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(DataError):
        get()
    server.page, server.ranges = True, False
    with pytest.raises(DataError, match=r"sent a web page instead of the file; .* put the file at .*file\.tar$"):
        get()
    assert (tmp_path / "file.tar.part").stat().st_size == 3000


def test_a_file_put_there_by_hand_is_checked_and_left_alone(server: Server, get: Get, tmp_path: Path) -> None:
    (tmp_path / "file.tar").write_bytes(b"another file")
    with pytest.raises(DataError, match=r"file\.tar: has sha256 .*remove it to download it again"):
        get()
    (tmp_path / "file.tar").write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT
    assert server.asked == []


def test_no_network_says_which_file_belongs_where(tmp_path: Path) -> None:
    download = Download("http://127.0.0.1:9/file.tar", "file.tar", DIGEST)
    with pytest.raises(
        DataError, match=r"cannot reach 127\.0\.0\.1 .*without a network, get .*put it at .*file\.tar and"
    ):
        fetch(download, tmp_path, lambda done, total: None)
    assert names(tmp_path) == set()


def test_an_answer_that_is_an_error_and_an_address_that_is_none_are_named(server: Server, tmp_path: Path) -> None:
    gone = Download(server.address.replace("file.tar", "gone"), "file.tar", DIGEST)
    with pytest.raises(DataError, match="the server answers 404 Not Found"):
        fetch(gone, tmp_path, lambda done, total: None)
    with pytest.raises(DataError, match="is no http address"):
        fetch(Download("file:///etc/passwd", "file.tar", DIGEST), tmp_path, lambda done, total: None)


def test_progress_counts_what_was_there_already(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.tar.part").write_bytes(CONTENT[:1000])
    seen: list[tuple[int, int]] = []
    fetch(Download(server.address, "file.tar", DIGEST), tmp_path, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (300_000, 300_000)
    assert all(total == 300_000 for _, total in seen)
