from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robusteval.models.state import lerp_state

ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)
FINITE = st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100)


def _state(values: list[float], count: int) -> dict[str, Tensor]:
    return {"weight": torch.tensor(values, dtype=torch.float32), "count": torch.tensor(count)}


def _bits(tensor: Tensor) -> list[int]:
    return tensor.reshape(-1).contiguous().view(torch.uint8).tolist()


@given(st.lists(st.tuples(ANY_FLOAT, ANY_FLOAT), min_size=1, max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_the_ends_are_bitwise_the_two_states(pairs: list[tuple[float, float]], first: int, second: int) -> None:
    a, b = (
        _state(list(values), count) for values, count in zip(zip(*pairs, strict=True), (first, second), strict=True)
    )
    for t, end in ((0.0, a), (1.0, b), (0, a), (1, b), (-0.0, a)):
        got = lerp_state(a, b, t)
        assert got.keys() == end.keys()
        assert all(_bits(got[name]) == _bits(end[name]) for name in end)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8), st.floats(0.0, 1.0))
def test_between_the_ends_floats_are_on_the_line_and_counters_come_from_b(
    pairs: list[tuple[float, float]], t: float
) -> None:
    a, b = (_state(list(values), count) for values, count in zip(zip(*pairs, strict=True), (3, 8), strict=True))
    got = lerp_state(a, b, t)
    exact = a["weight"].double() * (1 - t) + b["weight"].double() * t
    scale = torch.maximum(a["weight"].abs(), b["weight"].abs()).double()
    assert ((got["weight"].double() - exact).abs() <= 4e-7 * scale + 1e-37).all()
    assert got["weight"].dtype == torch.float32
    if 0 < t < 1:
        assert int(got["count"]) == 8


def test_the_middle_is_the_mean_of_weights_and_of_running_statistics() -> None:
    a, b = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    b.running_mean.fill_(4.0)
    b.weight.data.fill_(3.0)
    b.num_batches_tracked.fill_(7)
    got = lerp_state(a.state_dict(), b.state_dict(), 0.5)
    assert got["running_mean"].tolist() == [2.0, 2.0]
    assert got["weight"].tolist() == [2.0, 2.0]
    assert int(got["num_batches_tracked"]) == 7
    assert not got["weight"].requires_grad


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_the_result_shares_no_memory_with_its_inputs(t: float) -> None:
    a, b = _state([1.0], 1), _state([2.0], 2)
    for tensor in lerp_state(a, b, t).values():
        tensor.zero_()
    assert a["weight"].tolist() == [1.0]
    assert b["weight"].tolist() == [2.0]
    assert [int(a["count"]), int(b["count"])] == [1, 2]


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan"), float("inf")])
def test_positions_outside_the_segment_are_refused(t: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        lerp_state(_state([1.0], 1), _state([2.0], 2), t)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"weight": torch.ones(1)}, "different tensors: count"),
        ({"weight": torch.ones(2), "count": torch.tensor(1)}, "weight is"),
        ({"weight": torch.ones(1, dtype=torch.float64), "count": torch.tensor(1)}, "float64"),
    ],
)
def test_states_of_two_architectures_are_refused(other: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lerp_state(_state([1.0], 1), other, 0.5)
