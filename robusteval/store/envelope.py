"""The form of the JSON files of a store: records and id lists with a digest over all of it, and plans."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from robusteval.schema.digest import ids_digest, json_digest
from robusteval.schema.errors import CorruptRecordError, NewerFormatError, StoreError
from robusteval.schema.plans import StoredPlan
from robusteval.schema.records import SCHEMA_VERSION, ResultRecord

DIGEST = "record_digest"
"""Name of the digest: SHA-256 of the canonical JSON of everything else in the file."""


_AGAIN = "run the suite again to write it anew"


def encode_record(record: ResultRecord) -> bytes:
    """A record as the bytes of its file."""
    document = json.loads(record.model_dump_json())
    document[DIGEST] = json_digest(document)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def decode_record(blob: bytes, place: str, repair: str) -> ResultRecord:
    """Inverse of `encode_record`.

    Args:
        blob: content of the file.
        place: where the file is, for messages.
        repair: what to do about a damaged one.

    Raises:
        NewerFormatError: a newer version of this package wrote it.
        CorruptRecordError: any of its content was changed, or it is no record.
    """
    try:
        document = json.loads(blob)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        refuse_newer(document, place, SCHEMA_VERSION)
        promised, found = document.pop(DIGEST, None), json_digest(document)
        # Validated first: a message that names the field helps more than one that says that something was changed.
        record = ResultRecord.model_validate_json(json.dumps(document))
        if promised != found:
            raise ValueError(f"{DIGEST} is not the digest of the content, {found[:12]}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        detail = f"{where}: {first['msg']}" if where else first["msg"]
        raise CorruptRecordError(f"{place}: damaged record ({detail}); {repair}") from None
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(f"{place}: damaged record ({error}); {repair}") from None
    return record


def refuse_newer(document: dict[str, Any], place: str, known: int) -> None:
    """Refuse a file whose `schema_version` is above the `known` one.

    Raises:
        NewerFormatError: it is.
    """
    version = document.get("schema_version")
    if isinstance(version, int) and version > known:
        raise NewerFormatError(
            f"{place}: written by a newer robusteval (schema {version}, this one reads {known}); upgrade robusteval"
        )


def encode_ids(ids: tuple[str, ...], groups: tuple[str, ...]) -> bytes:
    """The ordered example ids of a slice, and what each was made from unless every example stands alone."""
    content = {"ids": list(ids), "groups": None if groups == ids else list(groups)}
    return json.dumps({**content, "digest": json_digest(content)}).encode()


def decode_ids(blob: bytes | None, digest: str, place: str) -> tuple[list[str], list[str] | None]:
    """An id list: its example ids and the group of each; no groups if every example stands alone.

    Raises:
        StoreError: there is no list.
        CorruptRecordError: its ids do not have this digest, or any of its content was changed.
    """
    if blob is None:
        raise StoreError(f"{place}: the id list is missing; {_AGAIN}")
    try:
        document = json.loads(blob)
        ids, groups = document["ids"], document["groups"]
        damaged = (
            ids_digest(ids) != digest
            or (groups is not None and len(groups) != len(ids))
            or document["digest"] != json_digest({"ids": ids, "groups": groups})
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        damaged = True
    if damaged:
        raise CorruptRecordError(f"{place}: damaged id list; {_AGAIN}")
    return list(ids), list(groups) if groups is not None else None


def decode_plan(blob: bytes, stem: str, place: str) -> StoredPlan:
    """The plan in a file called `stem`.

    Raises:
        NewerFormatError: a newer version of this package wrote it.
        CorruptRecordError: it is no plan, or belongs under another name.
    """
    try:
        document = json.loads(blob)
        if isinstance(document, dict):
            refuse_newer(document, place, SCHEMA_VERSION)
        plan = StoredPlan.model_validate_json(blob)
    except (ValueError, RecursionError):
        raise CorruptRecordError(f"{place}: damaged plan; {_AGAIN}") from None
    if stem != f"{plan.suite}@{plan.version}":
        raise CorruptRecordError(f"{place}: holds the plan of {plan.suite}@{plan.version}; remove or rename it")
    return plan
