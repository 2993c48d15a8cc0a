from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from robusteval.schema.errors import CorruptRecordError
from robusteval.store.columns import read_columns, text_list

BLOB = safetensors.numpy.save({"a": np.arange(3), "b": np.zeros((2, 2), dtype=np.float32)}, {"names": '["x", "y"]'})


def test_arrays_and_metadata_come_back() -> None:
    columns, metadata = read_columns(BLOB)
    assert columns["a"].tolist() == [0, 1, 2]
    assert columns["b"].shape == (2, 2)
    assert text_list(metadata, "names") == ["x", "y"]


@given(st.integers(0, len(BLOB) - 1), st.integers(0, 255))
def test_a_changed_or_cut_blob_is_read_or_refused_and_never_anything_else(place, byte) -> None:
    for blob in (BLOB[:place], BLOB[:place] + bytes([byte]) + BLOB[place + 1 :]):
        try:
            read_columns(blob)
        except CorruptRecordError:
            continue


@pytest.mark.parametrize("text", ["7", "{", '["x", 1]', '{"x": 1}', "[" * 100_000])
def test_a_list_of_names_is_just_that(text) -> None:
    with pytest.raises(CorruptRecordError, match="no list of names"):
        text_list({"names": text}, "names")
    with pytest.raises(CorruptRecordError):
        text_list({}, "names")
