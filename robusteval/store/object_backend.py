"""Blobs in a bucket: S3, Google Cloud Storage, Azure, through fsspec. The only module that imports fsspec.

A create-only write is a conditional request where the service has them (`If-None-Match` and its like), and otherwise
a write that is read back. An answer may be lost after a request was carried out, so a blob that is already there and
equal to ours counts as ours. Listings are never cached.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, TypeVar

from robusteval.schema.errors import StoreError, UnreachableError, UsageError
from robusteval.schema.registry import load_target

T = TypeVar("T")

SCHEMES = ("s3", "gs", "az", "memory")
"""Schemes of stores that are no folder; a `memory://` store lives as long as the process, for tests."""

_INSTALL = {"s3": "'robusteval[cloud]'", "gs": "'robusteval[cloud]' gcsfs", "az": "'robusteval[cloud]' adlfs"}
"""What to install for a scheme."""

_ERRORS = {
    "s3": ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError", "aiohttp:ClientError"),
    "gs": ("gcsfs.retry:HttpError", "google.auth.exceptions:GoogleAuthError", "aiohttp:ClientError"),
    "az": ("azure.core.exceptions:AzureError", "aiohttp:ClientError"),
}
"""What a service's package raises besides `OSError`."""

_HOPELESS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "NoRegionError",
    "InvalidRegionError", "ParamValidationError", "ConfigParseError", "UnauthorizedSSOTokenError",
    "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError",
}  # fmt: skip
"""Errors by name that no second attempt mends."""

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Waits between attempts, each varied by half; a service that fails a fifth of its calls fails all nine of one call
once in two million times."""


class ObjectBackend:
    """Blobs as objects below one prefix of a bucket.

    Args:
        filesystem: an fsspec filesystem without a listings cache.
        root: `bucket/prefix`, or the bucket alone.
        uri: how people address it, for messages.
        errors: what the filesystem raises besides `OSError`.
        pauses_s: waits between attempts, in seconds; their number bounds the attempts.
    """

    def __init__(
        self,
        filesystem: Any,
        root: str,
        uri: str,
        errors: tuple[type[Exception], ...] = (),
        pauses_s: tuple[float, ...] = _PAUSES_S,
    ) -> None:
        self.filesystem = filesystem
        self.root = root
        self.uri = uri
        self.pauses_s = pauses_s
        self._errors: tuple[type[Exception], ...] = (OSError, *errors)
        self._creating = _create_only(filesystem)
        self._small = _in_one_request(filesystem)

    @classmethod
    def connect(cls, scheme: str, root: str, uri: str) -> ObjectBackend:
        """The backend of a URI; nothing is asked of the service yet.

        Raises:
            UsageError: the package for this scheme is not installed.
        """
        try:
            make = importlib.import_module("fsspec").filesystem
            filesystem = make(scheme, use_listings_cache=False, **_settings(scheme))
            errors = tuple(load_target(name) for name in _ERRORS.get(scheme, ()))
        except ImportError as error:
            needed = _INSTALL.get(scheme, "'robusteval[cloud]'")
            raise UsageError(f"store {uri!r}: needs a package ({error}); pip install {needed}") from None
        except ValueError as error:
            raise UsageError(f"store {uri!r}: {error}") from None
        return cls(filesystem, root, uri, errors)

    def check(self) -> None:
        """Look whether the bucket is there.

        Raises:
            UnreachableError: it is not, or it cannot be reached or read.
        """
        bucket = self.root.partition("/")[0]
        if not self.uri.startswith("memory:"):
            try:
                self._patiently(lambda: self.filesystem.info(bucket), self.pauses_s[:4])
            except FileNotFoundError:
                raise self._no_bucket() from None

    def read(self, path: str) -> bytes | None:
        """The blob at `path`, or None."""
        try:
            options = self._small if path.endswith(".json") else {}
            blob: bytes = self._patiently(lambda: self.filesystem.cat_file(self._name(path), **options))
        except FileNotFoundError:
            return None
        return blob

    def write(self, path: str, blob: bytes, *, durable: bool = True) -> None:
        """Replace the blob at `path` in one step."""
        try:
            self._patiently(lambda: self.filesystem.pipe_file(self._name(path), blob))
        except FileNotFoundError:
            raise self._no_bucket() from None

    def create(self, path: str, blob: bytes, *, durable: bool = True) -> bool:
        """Write only if nothing is at `path`; of several writers of different blobs exactly one succeeds.

        Where the service has no conditional write, a writer that comes between the look and the write is noticed
        afterwards by reading back.
        """
        name = self._name(path)

        def attempt() -> bool:
            if self._creating is not None:
                try:
                    self.filesystem.pipe_file(name, blob, **self._creating)
                    return True
                except FileNotFoundError:
                    raise
                except self._errors as error:
                    there = self.read(path)
                    if there is not None or isinstance(error, FileExistsError):
                        return there == blob
                    if getattr(error, "errno", None) != errno.ENOSYS:
                        raise
                    self._creating = None
            there = self.read(path)
            if there is None:
                self.filesystem.pipe_file(name, blob)
                there = self.read(path)
            return there == blob

        try:
            return self._patiently(attempt)
        except FileNotFoundError:
            raise self._no_bucket() from None

    def exists(self, path: str) -> bool:
        """Whether an object is at `path`."""
        try:
            # `exists` of some filesystems takes every error for an absence.
            found = self._patiently(lambda: self.filesystem.info(self._name(path)))
        except FileNotFoundError:
            return False
        return bool(found["type"] == "file")

    def displace(self, path: str, target: str) -> None:
        """Copy the blob at `path` to `target`, then delete it."""
        blob = self.read(path)
        if blob is not None:
            self.write(target, blob)
            self.delete(path)

    def delete(self, path: str) -> None:
        """Remove the blob at `path` if it is there."""
        try:
            self._patiently(lambda: self.filesystem.rm_file(self._name(path)))
        except FileNotFoundError:
            return

    def paths(self, prefix: str) -> Iterator[str]:
        """Paths below the folder `prefix`, in any order."""
        name = self._name(prefix)
        try:
            found: list[str] = self._patiently(lambda: self.filesystem.find(name))
        except FileNotFoundError:
            return
        for path in found:
            if not path.endswith("/"):  # what consoles leave for an empty folder
                yield path.lstrip("/")[len(self.root) + 1 :]

    def locate(self, path: str) -> str:
        """The object's URI."""
        return f"{self.uri}/{path}"

    def _name(self, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or any(part in {"..", "/"} for part in parts):
            raise StoreError(f"{path!r} leaves the store; store paths are relative and have no '..'")
        return f"{self.root}/{path}"

    def _patiently(self, call: Callable[[], T], pauses_s: tuple[float, ...] | None = None) -> T:
        """Call, and again after each pause while it fails with something that may pass.

        Raises:
            FileNotFoundError: there is no such object, or no such bucket.
            UnreachableError: it failed every time, or with something that does not pass.
        """
        for pause in (*(self.pauses_s if pauses_s is None else pauses_s), None):
            try:
                return call()
            except (FileNotFoundError, FileExistsError):
                raise
            except self._errors as error:
                if pause is None or _is_hopeless(error):
                    raise self._unreachable(error) from error
                time.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
        raise AssertionError("the last pause is None")

    def _unreachable(self, error: Exception) -> UnreachableError:
        reason = " ".join(str(error).split())[:200] or "no reason given"
        if _is_hopeless(error):
            return UnreachableError(f"{self.uri}: refused ({reason}); check the name and the credentials")
        return UnreachableError(f"{self.uri}: cannot be reached ({reason}); check the network and the endpoint")

    def _no_bucket(self) -> UnreachableError:
        bucket = self.root.partition("/")[0]
        return UnreachableError(f"{self.uri}: there is no bucket {bucket!r}; create it, or correct the name")


def _is_hopeless(error: Exception) -> bool:
    return isinstance(error, PermissionError) or type(error).__name__ in _HOPELESS


def _create_only(filesystem: Any) -> dict[str, Any] | None:
    """The argument that makes a write of this filesystem fail where something is; None if it has none."""
    parameters = inspect.signature(getattr(filesystem, "_pipe_file", filesystem.pipe_file)).parameters
    if "mode" in parameters:
        return {"mode": "create"}
    return {"overwrite": False} if "overwrite" in parameters else None


def _in_one_request(filesystem: Any) -> dict[str, Any]:
    """The argument with which a read does not ask for the size first, to fetch parts at once."""
    parameters = inspect.signature(getattr(filesystem, "_cat_file", filesystem.cat_file)).parameters
    return {"max_concurrency": 1} if "max_concurrency" in parameters else {}


def _settings(scheme: str) -> dict[str, Any]:
    """Settings that leave retrying to this module, added to the user's own ones of fsspec."""
    if scheme != "s3":
        return {}
    given: dict[str, Any] = importlib.import_module("fsspec.config").conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}, **given}}
