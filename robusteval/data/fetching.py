"""Downloads that resume after an interruption, and are used only when their checksum is right."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from robusteval.data.catalogue import Download
from robusteval.schema.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes of the whole file, 0 if unknown."""

_CHUNK = 1 << 20
_ATTEMPTS = 3
_TIMEOUT_S = 30.0


class _InterruptedError(Exception):
    """The connection ended before the file did; what came is kept."""


def fetch(download: Download, folder: Path, progress: Progress) -> Path:
    """Download a file, or check one that is there already.

    What was downloaded before an interruption stays in `NAME.part`, and the next call goes on from there. The file gets
    its name only when its checksum is right.

    Args:
        download: what to fetch.
        folder: where it goes.
        progress: told how far it is.

    Returns:
        The file.

    Raises:
        DataError: there is no network, the server answers with something else, the connection broke again and again,
            the checksum is wrong, or the disk is full.
    """
    target = folder / download.name
    part = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{target.name}.lock"):
            if target.exists():
                _check(target, download, f"remove it to download it again from {download.url}")
                return target
            _download(download, part, target, progress)
            try:
                _check(part, download, "it was removed; run the command again")
            except DataError:
                part.unlink()
                raise
            part.replace(target)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); make room there") from None
    return target


def _download(download: Download, part: Path, target: Path, progress: Progress) -> None:
    by_hand = f"without a network, get {download.url} elsewhere, put it at {target} and run the command again"
    problem = ""
    for _ in range(_ATTEMPTS):
        try:
            _go_on(download, part, progress)
        except _InterruptedError as error:
            problem = str(error)
        except urllib.error.HTTPError as error:
            raise DataError(
                f"{download.url}: the server answers {error.code} {error.reason}; get the file elsewhere and put it at "
                f"{target}"
            ) from None
        except urllib.error.URLError as error:
            host = urlsplit(download.url).hostname
            raise DataError(f"{download.url}: cannot reach {host} ({error.reason}); {by_hand}") from None
        else:
            return
    raise DataError(f"{download.url}: {problem}; run the command again to go on from there")


def _go_on(download: Download, part: Path, progress: Progress) -> None:
    """Download the rest of a file, or all of it where the server cannot start in the middle.

    Raises:
        _InterruptedError: the connection ended too early.
        DataError: the server sent a web page.
    """
    there = part.stat().st_size if part.exists() else 0
    if urlsplit(download.url).scheme not in ("http", "https"):
        raise DataError(f"{download.url}: is no http address")
    request = urllib.request.Request(download.url, headers={"User-Agent": "robusteval"})  # noqa: S310 - checked above
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310 - checked above
            goes_on = response.status == http.client.PARTIAL_CONTENT and _starts_at(response, there)
            _receive(response, part, there if goes_on else 0, download, progress)
    except urllib.error.HTTPError as error:
        if there and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            if there == download.size:
                return
            part.unlink()
            raise _InterruptedError("what was there was longer than the file") from None
        raise
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _InterruptedError(_broken(part, download.size, str(error) or type(error).__name__)) from None


def _receive(
    response: http.client.HTTPResponse, part: Path, start: int, download: Download, progress: Progress
) -> None:
    length = response.headers.get("Content-Length")
    whole = start + int(length) if length and length.isdecimal() else 0
    got, chunk = start, response.read(_CHUNK)
    if start == 0 and chunk.lstrip()[:1] == b"<":
        raise DataError(
            f"{download.url}: the server sent a web page instead of the file; open the address in a browser, and put "
            f"the file at {part.with_suffix('')}"
        )
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while chunk:
            file.write(chunk)
            got += len(chunk)
            progress(got, whole or download.size)
            chunk = response.read(_CHUNK)
        file.flush()
        os.fsync(file.fileno())
    if whole and got < whole:
        raise _InterruptedError(_broken(part, whole, "the connection ended"))


def _broken(part: Path, whole: int, reason: str) -> str:
    there = part.stat().st_size if part.exists() else 0
    return f"{reason} after {there} of {whole or 'unknown'} bytes"


def _starts_at(response: http.client.HTTPResponse, there: int) -> bool:
    return (response.headers.get("Content-Range") or "").startswith(f"bytes {there}-")


def _check(path: Path, download: Download, fix: str) -> None:
    kind, _, expected = download.digest.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: has {kind} {found[:12]}, not {expected[:12]}: it is damaged or another version; {fix}"
        )
