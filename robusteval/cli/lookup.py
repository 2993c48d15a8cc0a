"""What a user means by a suite or a key: the stored plan, or the one cell whose key begins so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from robusteval.cli.options import shortened

if TYPE_CHECKING:
    from robusteval.schema.plans import StoredPlan
    from robusteval.store.store import Store

_KEY = re.compile(r"[0-9a-f]{6,64}")


def find_plan(place: Store, what: str) -> StoredPlan | None:
    """The stored plan that a user means; None if they mean a cell.

    Raises:
        UsageError: it is neither.
    """
    from robusteval.planning.loader import read_spec
    from robusteval.planning.names import is_name, is_path, packaged_suites
    from robusteval.schema.errors import UsageError, unknown_name

    if is_path(what):
        spec = read_spec(what)
        name, version = spec.name, str(spec.version)
    else:
        name, _, version = what.partition("@")
    if not is_name(name):
        raise UsageError(f"{shortened(what)!r} is no suite name, file or key; robusteval show lists what is stored")
    if version and not re.fullmatch("[0-9]{1,16}", version):
        raise UsageError(f"{shortened(what)!r}: the version after @ is a number, such as {name}@1")
    stored = place.get_plan(name, int(version) if version else None)
    if stored is not None:
        return stored
    if _KEY.fullmatch(what):
        return None
    plans = place.plans(damaged=[])
    versions = [plan.version for plan in plans if plan.suite == name]
    if versions:
        raise UsageError(
            f"{name} has no stored version {version}; write {' or '.join(f'{name}@{v}' for v in versions)}"
        )
    message = unknown_name("stored suite", name, {plan.suite for plan in plans})
    if is_path(what) or name in packaged_suites():
        raise UsageError(f"{message}; `robusteval run {what if is_path(what) else name}` makes results in {place.uri}")
    raise UsageError(f"{message} (`robusteval show` lists what is in {place.uri})")


def find_key(place: Store, prefix: str) -> str:
    """The key of the one stored cell, finished or failed, that begins with `prefix`.

    Raises:
        UsageError: no cell does, or several do.
    """
    from robusteval.schema.errors import UsageError

    paths = (path for folder in ("records", "failures") for path in place.backend.paths(folder))
    keys = sorted({Path(path).stem for path in paths if Path(path).stem.startswith(prefix)})
    if not keys:
        raise UsageError(f"no stored cell has a key that begins with {prefix!r}; robusteval ls results lists them")
    if len(keys) > 1:
        some = ", ".join(key[:16] for key in keys[:5])
        raise UsageError(f"{len(keys)} stored cells have keys that begin with {prefix!r}: {some}; write more of it")
    return keys[0]
