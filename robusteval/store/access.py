"""Whether a store can be used, found out before any work is done for it."""

from __future__ import annotations

import json
import secrets

from robusteval.schema.errors import CorruptRecordError, UnreachableError
from robusteval.schema.records import SCHEMA_VERSION
from robusteval.store.backend import Backend
from robusteval.store.envelope import refuse_newer

MARK = "store.json"
"""Name of the blob that says which version of this package's formats a store has; an older store has none."""


def check_readable(backend: Backend) -> None:
    """Look whether a store is there and of a version that this package reads.

    Raises:
        UnreachableError: it cannot be reached or read.
        NewerFormatError: a newer robusteval made it.
        CorruptRecordError: what says so is damaged.
    """
    backend.check()
    place = backend.locate(MARK)
    try:
        blob = backend.read(MARK)
    except OSError as error:
        raise UnreachableError(f"{place}: cannot be read ({error.strerror or error}); use another store") from None
    if blob is None:
        return
    try:
        document = json.loads(blob)
        known = isinstance(document["schema_version"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        raise CorruptRecordError(f"{place}: the mark of a store is damaged; remove it if this is a store of robusteval")
    refuse_newer(document, place, SCHEMA_VERSION)


def check_writable(backend: Backend) -> None:
    """Look also whether results can be stored; a new store gets its mark.

    Raises:
        UnreachableError: they cannot.
        StoreError: as in `check_readable`.
    """
    check_readable(backend)
    mark = json.dumps({"schema_version": SCHEMA_VERSION, "what": "results of robusteval"}).encode() + b"\n"
    probe = f"leases/probe-{secrets.token_hex(8)}"
    try:
        if not backend.create(MARK, mark):
            backend.write(probe, b"", durable=False)
            backend.delete(probe)
    except OSError as error:
        place = backend.locate(MARK)
        raise UnreachableError(f"{place}: cannot be written ({error.strerror or error}); use another store") from None
