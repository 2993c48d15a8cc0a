"""Reading what a submitter says about a model."""

from __future__ import annotations

import json
from pathlib import Path

from robusteval.leaderboard.entries import Claims, read_json
from robusteval.schema.errors import UsageError
from robusteval.schema.params import checked_params


def read_claims(path: Path | None, title: str) -> Claims:
    """Claims from a JSON file; only the title without one.

    Raises:
        UsageError: the file is not there, not JSON, or says something that no entry holds.
    """
    if path is None:
        return Claims(title=title)
    try:
        fields = read_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise UsageError(f'{path}: is {json.dumps(fields)[:40]}, not a JSON object such as {{"title": "My model"}}')
    return checked_params(f"{path}", Claims, {"title": title, **fields})
