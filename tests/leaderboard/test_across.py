from __future__ import annotations

import pytest

from robusteval.leaderboard.across import Standing, across_boards


def standing(**values: float) -> Standing:
    """Values without ties: every row is a group of its own."""
    order = sorted(values, key=lambda name: -values[name])
    return Standing(values, {name: place for place, name in enumerate(order)})


def test_rows_that_win_on_every_board_come_first() -> None:
    boards = {name: standing(trained=0.6, plain=0.1, tuned=0.3 + 0.01 * place) for place, name in enumerate("abc")}
    found = across_boards(boards)
    assert found is not None
    assert found.boards == ("a", "b", "c")
    assert found.found == {"trained": 3, "plain": 3, "tuned": 3}
    assert found.win_rate == {"trained": 1.0, "tuned": 0.5, "plain": 0.0}
    strengths = [found.strength[name].value for name in ("trained", "tuned", "plain")]
    assert strengths == sorted(strengths, reverse=True)
    assert found.strength["tuned"].value == pytest.approx(0.0, abs=1e-6)
    assert list(found.agreement.values()) == pytest.approx([1.0, 1.0, 1.0])


def test_a_difference_that_a_board_cannot_tell_apart_is_no_win() -> None:
    tied = Standing({"one": 0.51, "two": 0.5}, {"one": 1, "two": 1})
    found = across_boards({"a": tied, "b": tied})
    assert found is not None
    assert found.win_rate == {"one": 0.5, "two": 0.5}
    assert found.strength["one"].value == pytest.approx(0.0, abs=1e-6)


def test_boards_that_disagree_widen_the_interval() -> None:
    agreeing = across_boards({name: standing(one=0.6, two=0.1) for name in "abcd"})
    mixed = across_boards({name: standing(one=0.6, two=0.1 if name != "d" else 0.7) for name in "abcd"})
    assert agreeing is not None
    assert mixed is not None
    assert agreeing.strength["one"].low == pytest.approx(agreeing.strength["one"].high)
    assert mixed.strength["one"].low < mixed.strength["one"].value < agreeing.strength["one"].value


@pytest.mark.parametrize(
    "boards",
    [{}, {"a": standing(one=0.5, two=0.4)}, {"a": standing(one=0.5, two=0.4), "b": standing(one=0.5, three=0.4)}],
)
def test_without_two_boards_that_share_two_rows_nothing_is_said(boards: dict[str, Standing]) -> None:
    assert across_boards(boards) is None
