"""Any image files as a dataset, listed in a CSV file with the columns path, label, domain and split."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pydantic import Field

from robusteval.data.folder_index import ImageFile, complaint, stamped
from robusteval.data.imageset import Split, canonical_rank
from robusteval.data.indexed import DecodingParams, IndexedImages
from robusteval.data.places import at_home
from robusteval.data.splits import DomainSplitParams, assign_splits, domain_order, refuse_split_options
from robusteval.schema.digest import json_digest
from robusteval.schema.errors import DataError, unknown_name
from robusteval.schema.types import Frozen

COLUMNS = ("path", "label", "domain", "split")
_SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "crossval": "validation",
    "test": "test",
}
_ONE_DOMAIN = "data"


class CsvParams(DomainSplitParams, DecodingParams):
    """Where the list is, how its images are read, and how they are split where the list does not say."""

    path: str = Field(min_length=1)
    """The CSV file; the paths in it are relative to its folder and must stay inside."""


class CsvIndex(IndexedImages[CsvParams]):
    """Image files in a list; `domain` and `split` may be left out.

    Without a column `domain`, there is one domain called `data`. Without a column `split`, domains are split as those
    of a folder tree; a column `split` holds `train`, `validation` or `test` in every row, so that official lists of a
    benchmark can be followed exactly.
    """

    Params: ClassVar[type[Frozen]] = CsvParams

    @cached_property
    def revision(self) -> str:
        """SHA-256 over paths, contents, labels, domains and splits."""
        rows = [[file.path, file.top, file.label, self._named.get(file.path, "")] for file in self._files]
        return json_digest([super().revision, rows])

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Values of the column `domain`, sorted."""
        return domain_order(self._files)

    @cached_property
    def _list(self) -> Path:
        return at_home(self.params.path).resolve()

    @cached_property
    def root(self) -> Path:
        """Folder that everything lies in."""
        return self._list.parent

    @cached_property
    def _files(self) -> tuple[ImageFile, ...]:
        return self._read[0]

    @cached_property
    def _named(self) -> dict[str, Split]:
        """Split by path, where the list says it."""
        return self._read[1]

    @cached_property
    def _positions(self) -> dict[tuple[str, Split], list[int]]:
        if not self._named:
            return assign_splits(self._files, self.domains, self.params)
        refuse_split_options(self.params, f"{self._list}: the column 'split'")
        positions: dict[tuple[str, Split], list[int]] = {}
        for index, file in enumerate(self._files):
            positions.setdefault((file.top, self._named[file.path]), []).append(index)
        return positions

    @cached_property
    def _read(self) -> tuple[tuple[ImageFile, ...], dict[str, Split]]:
        problems: list[str] = []
        files: dict[str, ImageFile] = {}
        splits: dict[str, Split] = {}
        for line, row in self._rows():
            try:
                file, split = self._entry(row)
            except DataError as error:
                problems.append(f"line {line}: {error}")
                continue
            if file.path in files:
                problems.append(f"line {line}: {file.path} stands on an earlier line already; keep one")
            files[file.path] = file
            if split is not None:
                splits[file.path] = split
        if problems:
            more = [f"and {len(problems) - 8} more"] if len(problems) > 8 else []
            raise complaint(self._list, "this list cannot be used", [*problems[:8], *more])
        if not files:
            raise DataError(f"{self._list}: lists no image; write one row an image")
        return tuple(sorted(files.values(), key=lambda file: (file.top, canonical_rank(file.path)))), splits

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and cells of every row.

        Raises:
            DataError: the file cannot be read, or its columns are not the known ones.
        """
        try:
            text = self._list.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise DataError(f"{self._list}: cannot be read ({error.strerror}); give a CSV file") from None
        except UnicodeDecodeError:
            raise DataError(f"{self._list}: is not UTF-8 text; save it as UTF-8") from None
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            columns = list(reader.fieldnames or ())
            self._check_columns(columns)
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{self._list}: line {reader.line_num} has another number of cells than {len(columns)}; mend it"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{self._list}: line {reader.line_num}: {error}; mend the line") from None

    def _check_columns(self, columns: list[str]) -> None:
        for name in columns:
            if name not in COLUMNS:
                raise DataError(f"{self._list}: {unknown_name('column', name, COLUMNS)}")
        missing = [name for name in COLUMNS[:2] if name not in columns]
        if missing or len(set(columns)) != len(columns):
            raise DataError(
                f"{self._list}: the first line must name the columns path, label[, domain][, split] once each"
            )

    def _entry(self, row: dict[str, str]) -> tuple[ImageFile, Split | None]:
        """One row, checked.

        Raises:
            DataError: something is wrong with it.
        """
        path, label, domain = row["path"], row["label"], row.get("domain", _ONE_DOMAIN)
        if not label or not domain:
            raise DataError(f"{path!r} has no {'label' if not label else 'domain'}; write one")
        parts = PurePosixPath(path).parts
        if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path or "\0" in path:
            raise DataError(f"{path!r} is no path inside the folder of the list; write folder/file, without '..'")
        if not (self.root / path).resolve().is_relative_to(self.root):
            raise DataError(f"{path!r} is a link that leaves the folder of the list; copy the file there")
        name = PurePosixPath(path).as_posix()
        stamp = stamped(self.root, name)
        if "split" in row and row["split"] not in _SPLITS:
            raise DataError(unknown_name("split", row["split"], _SPLITS))
        split = _SPLITS[row["split"]] if "split" in row else None
        return ImageFile(name, stamp.size, stamp.modified, domain, label), split
