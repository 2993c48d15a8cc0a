"""Writing rows of examples: CSV without a library, JSON, Parquet.

Example ids and domain names come from files that others named. A spreadsheet runs a text that begins with `=`, `+`,
`-` or `@` as a formula, so in CSV such a text, and one that begins with an apostrophe, gets an apostrophe before it;
who reads the file with a program takes one leading apostrophe away. JSON and Parquet hold texts as they are.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from robusteval.schema.errors import UsageError
from robusteval.scoring.examples import ExampleColumns, Value
from robusteval.store.atomic import write_atomically

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""First characters of a text that gets an apostrophe before it in CSV."""
ENDINGS = (".csv", ".json", ".parquet")
"""Endings of files that can be written."""
_DTYPES: dict[type, str] = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}


def write_examples(table: ExampleColumns, file: Path) -> None:
    """Write rows to a file, in the form that its ending names; a file that is there is replaced in one step.

    Raises:
        UsageError: another ending, the file cannot be written, or Parquet without its library.
    """
    check_ending(file)
    if file.suffix == ".parquet":
        blob = _parquet(table)
    else:
        text = io.StringIO(newline="")
        (write_csv if file.suffix == ".csv" else write_json)(table, text)
        blob = text.getvalue().encode()
    try:
        write_atomically(file, blob)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--out {file}: cannot be written ({reason}); give a file in a folder you can write") from None


def check_ending(file: Path) -> None:
    """Refuse a file that cannot be written before anything is read.

    Raises:
        UsageError: an ending that is not known, or Parquet without its library.
    """
    if file.suffix not in ENDINGS:
        raise UsageError(f"--out {file}: the ending says what is written; use {', '.join(ENDINGS)}")
    if file.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError(
            f"--out {file}: Parquet needs pyarrow, which is not installed; pip install 'robusteval[parquet]', "
            f"or give a .csv"
        )


def write_csv(table: ExampleColumns, stream: TextIO) -> None:
    """Write rows as CSV (RFC 4180 quoting, line feeds): truth values as `true` and `false`, nothing where unknown."""
    for row in itertools.chain([tuple(table)], _rows(table)):
        stream.write(",".join(map(_csv_value, row)) + "\n")


def write_json(table: ExampleColumns, stream: TextIO) -> None:
    """Write rows as a JSON array with one object a line."""
    names = list(table)
    before = "[\n"
    for row in _rows(table):
        stream.write(before + json.dumps(dict(zip(names, row, strict=True)), allow_nan=False))
        before = ",\n"
    stream.write("[]\n" if before == "[\n" else "\n]\n")


def to_example_frame(table: ExampleColumns) -> pd.DataFrame:
    """Rows as a data frame whose columns are nullable: unknown values are missing."""
    import pandas as pd

    def column(values: Any) -> Any:
        return pd.array(values, dtype=_dtype(values))

    return pd.DataFrame({name: column(values) for name, values in table.items()})


def _parquet(table: ExampleColumns) -> bytes:
    blob = io.BytesIO()
    to_example_frame(table).to_parquet(blob, index=False, engine="pyarrow")
    return blob.getvalue()


def _dtype(values: list[Value]) -> str:
    """Narrowest type of all values; text if they are all unknown."""
    kinds = {type(value) for value in values if value is not None}
    return _DTYPES[kinds.pop()] if len(kinds) == 1 else "string" if str in kinds or not kinds else "Float64"


def _rows(table: ExampleColumns) -> Iterator[tuple[Value, ...]]:
    return zip(*table.values(), strict=True)


def _csv_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _csv_text(value)
    return "" if value is None else repr(value)


def _csv_text(text: str) -> str:
    # The writer of the standard library leaves a lone carriage return unquoted before Python 3.13.
    safe = "'" + text if text.startswith(FORMULA) else text
    return '"' + safe.replace('"', '""') + '"' if any(mark in safe for mark in ',"\r\n') else safe
