"""From what a user writes for a store to where its blobs are: a folder, or a prefix of a bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from robusteval.schema.errors import UsageError
from robusteval.store.backend import Backend, LocalBackend
from robusteval.store.blob_cache import BlobCache
from robusteval.store.object_backend import SCHEMES, ObjectBackend
from robusteval.store.places import artefact_cache, store_folder

VALID = "give a folder, file:///folder, s3://bucket/folder, gs://bucket/folder or az://container/folder"


@dataclass(frozen=True)
class Location:
    """Where a store is.

    Attributes:
        uri: how it is addressed, the same for every way of writing it.
        backend: where its blobs live.
        local: folder of this machine for scratch space and locks.
        cache: local copies of its artefacts, if it lies elsewhere.
    """

    uri: str
    backend: Backend
    local: Path
    cache: BlobCache | None


def resolve(place: str | Path) -> Location:
    """Find the place of a store; nothing is made and nobody is asked yet.

    Raises:
        UsageError: the scheme is not supported, the URI has no bucket, or the path is a file.
    """
    text = str(place)
    scheme = urlparse(text).scheme.lower()
    if scheme in SCHEMES:
        return _in_bucket(text, scheme)
    if scheme == "file":
        text = unquote(urlparse(text).path)
    elif len(scheme) > 1:
        raise UsageError(f"store {text!r}: scheme {scheme!r} is not supported; {VALID}")
    root = Path(text).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise UsageError(f"store {root}: is a file; give a folder")
    return Location(root.as_uri(), LocalBackend(root), root, None)


def _in_bucket(text: str, scheme: str) -> Location:
    bucket, *folders = text.partition("://")[2].split("/")
    parts = [part for part in folders if part]
    if not bucket or "@" in bucket or ".." in parts or re.search(r"[\s?#\\]", text):
        raise UsageError(f"store {text!r}: is no place in a bucket; give {scheme}://bucket/folder, in plain characters")
    root = "/".join([bucket, *parts])
    uri = f"{scheme}://{root}"
    backend = ObjectBackend.connect(scheme, root, uri)
    return Location(uri, backend, store_folder(uri), BlobCache(artefact_cache()))
