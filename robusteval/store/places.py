"""Where a user's machine keeps what can be made or fetched again."""

from __future__ import annotations

from pathlib import Path

from robusteval.schema.digest import sha256_hex


def user_cache() -> Path:
    """The folder of everything that can be made again."""
    return Path.home() / ".cache" / "robusteval"


def store_folder(uri: str) -> Path:
    """Scratch space and locks, on this machine, of a store that lies elsewhere."""
    return user_cache() / "stores" / sha256_hex(uri.encode())[:32]


def artefact_cache() -> Path:
    """Local copies of artefacts, which all stores share: their names are their content."""
    return user_cache() / "artefacts"
