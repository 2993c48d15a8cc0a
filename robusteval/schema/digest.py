"""Canonical JSON, digests, and outcome bits.

Canonical JSON is RFC 8785 (JSON Canonicalization Scheme, Rundgren et al. 2020), so that a key can be recomputed
in any language.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import rfc8785

_LARGEST = 2**53 - 1
"""Largest integer of RFC 8785."""


def canonical_json(value: Any) -> bytes:
    """Encode a JSON value as RFC 8785 bytes; NaN and infinities raise `ValueError`."""
    plain = value
    if not _is_plain(value):
        plain = _whole(value)
        if not _is_plain(plain):
            return rfc8785.dumps(value)
    # The standard encoder writes the same bytes many times faster.
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _whole(value: Any) -> Any:
    """The same value with an integer for every whole float, which the canonical form writes without a point."""
    kind = type(value)
    if kind is dict:
        return {key: _whole(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_whole(item) for item in value]
    return int(value) if kind is float and value.is_integer() else value


def _is_plain(value: Any) -> bool:
    """Whether Python's JSON with sorted keys is the canonical form of a value.

    Keys beyond ASCII are sorted differently, and numbers outside the range that both write without an exponent, or
    whole ones with a point, are written differently.
    """
    kind = type(value)
    if kind is str:
        return bool(value.isascii())
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_plain(item) for key, item in value.items())
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))
    if kind is float:
        return bool(1e-4 <= abs(value) < 1e15) and not value.is_integer()
    return value is None or kind is bool or (kind is int and bool(-_LARGEST <= value <= _LARGEST))


def sha256_hex(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data` (64 characters)."""
    return hashlib.sha256(data).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return sha256_hex(canonical_json(value))


def ids_digest(ids: Iterable[str]) -> str:
    """Digest of a sequence of example ids; the order counts."""
    return json_digest(list(ids))


def stable_int(*parts: str | int, bits: int = 63) -> int:
    """A non-negative integer that depends only on `parts`; equal on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def pack_bits(flags: Sequence[bool]) -> str:
    """Pack booleans into base64, first flag in the highest bit of the first byte."""
    packed = bytearray((len(flags) + 7) // 8)
    for index, flag in enumerate(flags):
        if flag:
            packed[index >> 3] |= 0x80 >> (index & 7)
    return base64.b64encode(bytes(packed)).decode("ascii")


def unpack_bits(text: str, n: int) -> list[bool]:
    """Inverse of `pack_bits`.

    Raises:
        ValueError: the text is not base64, holds another number of bytes, or sets bits past `n`.
    """
    packed = check_bits(text, n)
    return [bool(packed[index >> 3] & (0x80 >> (index & 7))) for index in range(n)]


def check_bits(text: str, n: int) -> bytes:
    """The bytes of packed booleans, without unpacking them.

    Raises:
        ValueError: the text is not base64, holds another number of bytes, or sets bits past `n`.
    """
    packed = base64.b64decode(text, validate=True)
    if len(packed) != (n + 7) // 8:
        raise ValueError(f"{len(packed)} bytes cannot hold exactly {n} outcomes")
    if n % 8 and packed[-1] & (0xFF >> n % 8):
        raise ValueError(f"bits past outcome {n} are set")
    return packed
