from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robusteval.methods.resume import Best, Finished, decode, encode
from robusteval.schema.errors import CorruptRecordError
from robusteval.schema.records import Budget

FINISHED = Finished(
    epochs=2,
    iteration=14,
    history=({"epoch": 1.0, "loss": 0.1 + 0.2}, {"epoch": 2.0, "loss": 1e-17 / 3}),
    best=Best(epoch=1, score=2 / 3),
    spent=Budget(forward=10, backward=9),
    selection=Budget(forward=3),
    diagnostics={"modules": {"conv": 0.1}},
)


def test_tensors_and_numbers_come_back_bit_for_bit():
    shared = torch.rand(3, 2)
    groups = {
        "model": {"a.weight": shared, "tied": shared, "count": torch.tensor(7), "turned": torch.rand(2, 5).T},
        "optimizer": {"0/step": torch.tensor(3.0), "0/exp_avg": torch.rand(4, dtype=torch.bfloat16)},
        "method": {},
    }
    finished, found = decode(encode(FINISHED, groups), "here")
    assert finished == FINISHED
    assert set(found) == {"model", "optimizer"}
    for group, tensors in found.items():
        assert set(tensors) == set(groups[group])
        for name, value in tensors.items():
            assert value.dtype == groups[group][name].dtype
            assert torch.equal(value, groups[group][name])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_every_finite_number_of_the_history_survives(numbers):
    history = tuple({"loss": number} for number in numbers)
    finished, _ = decode(encode(FINISHED.model_copy(update={"history": history}), {}), "here")
    assert finished.history == history


@given(st.integers(0, 400))
def test_a_shortened_blob_is_refused_by_name(cut):
    blob = encode(FINISHED, {"model": {"weight": torch.zeros(100)}})
    with pytest.raises(CorruptRecordError, match="cells/abc/training: not a saved training state"):
        decode(blob[: cut % len(blob)], "cells/abc/training")


def test_tensors_of_somebody_else_are_refused_by_name():
    import safetensors.torch

    blob = safetensors.torch.save({"weight": torch.zeros(2)})
    with pytest.raises(CorruptRecordError, match="delete this file to start the cell again"):
        decode(blob, "training")
