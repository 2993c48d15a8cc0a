from __future__ import annotations

import numpy as np
import pytest

from robusteval.schema.errors import UsageError
from robusteval.scoring.compare import adjust, compare_outcomes, compare_records
from robusteval.scoring.outcomes import Outcomes
from robusteval.stats.paired import mcnemar_exact, sign_flip_test


def outcomes(right, domains=None, groups=None, seeds=None, digest="d"):
    array = np.atleast_2d(np.asarray(right, dtype=bool))
    n = array.shape[1]
    return Outcomes(
        seeds=tuple(range(len(array))) if seeds is None else seeds,
        right=array,
        domains=tuple(domains or ["one"] * n),
        groups=tuple(groups or map(str, range(n))),
        grouped=groups is not None,
        ids_digest=digest,
    )


def test_records_are_compared_by_exact_mcnemar(make_world):
    world = make_world(clean_n=40)
    base = [True] * 30 + [False] * 10
    candidate = [True] * 22 + [False] * 8 + [True] * 1 + [False] * 9
    keys = [
        world.measure(world.train(name, 0), "id", {"clean": bits}) for name, bits in (("a", base), ("b", candidate))
    ]
    found = compare_records(world.records[keys[0]], world.records[keys[1]], "clean", ("a", "b"))
    assert (found.losses, found.gains, found.n) == (8, 1, 40)
    assert found.p == pytest.approx(mcnemar_exact(8, 1))
    assert found.difference.value == pytest.approx(-7 / 40)
    assert found.difference.low < -7 / 40 < found.difference.high
    assert found.verdict == "worse"


def test_a_record_equals_itself(make_world):
    world = make_world()
    key = world.measure(world.train("a", 0), "id", {"clean": [True] * 25 + [False] * 15})
    found = compare_records(world.records[key], world.records[key], "clean")
    assert (found.losses, found.gains, found.p, found.verdict) == (0, 0, 1.0, "not separable")
    assert found.base == key[:12]


def test_different_examples_are_refused(make_world):
    world = make_world()
    first = world.measure(world.train("a", 0), "id", {"clean": [True] * 40})
    second = world.measure(world.train("a", 0), "ood", {"clean": [True] * 80})
    with pytest.raises(UsageError, match="different examples in clean"):
        compare_records(world.records[first], world.records[second], "clean")


def test_only_common_seeds_are_compared_and_some_are_needed():
    base = outcomes([[1, 1, 0, 0], [1, 1, 1, 1]], seeds=(0, 1))
    candidate = outcomes([[0, 0, 0, 0], [1, 1, 1, 0]], seeds=(2, 1))
    found = compare_outcomes(("a", "b"), "a_id", base, candidate)
    assert found.seeds == (1,)
    assert (found.losses, found.gains) == (1, 0)
    with pytest.raises(UsageError, match="no training seed"):
        compare_outcomes(("a", "b"), "a_id", base, outcomes([[1, 1, 1, 1]], seeds=(9,)))


def test_grouped_examples_flip_together():
    groups = ["g0", "g0", "g0", "g1", "g1", "g1", "g2", "g2", "g2"]
    base, candidate = outcomes([1] * 9, groups=groups), outcomes([0] * 9, groups=groups)
    found = compare_outcomes(("a", "b"), "a_id", base, candidate)
    assert found.losses == 9
    # Three independent sources all fell: 2 (1/2)^3, not 2 (1/2)^9.
    assert found.p == pytest.approx(0.25)
    assert found.verdict == "not separable"


def test_domains_of_unequal_size_count_the_same():
    domains = ["small"] * 5 + ["large"] * 20
    base = outcomes([0] * 5 + [1] * 5 + [0] * 15, domains)
    candidate = outcomes([1] * 5 + [0] * 5 + [0] * 15, domains)
    found = compare_outcomes(("a", "b"), "a_ood", base, candidate)
    assert (found.losses, found.gains) == (5, 5)
    assert found.difference.value == pytest.approx((1.0 - 0.25) / 2)
    assert found.p == pytest.approx(sign_flip_test([4] * 5 + [-1] * 5))


def test_holm_takes_back_verdicts_that_do_not_survive_many_looks():
    right = [1] * 40
    base = outcomes(right)
    strong = compare_outcomes(("a", "strong"), "a_id", base, outcomes([0] * 20 + [1] * 20))
    slight = compare_outcomes(("a", "slight"), "a_id", base, outcomes([0] * 6 + [1] * 34))
    assert slight.verdict == "worse"
    assert slight.p == pytest.approx(2 * 0.5**6)
    adjusted = adjust([strong, slight, slight])
    assert [found.verdict for found in adjusted] == ["worse", "not separable", "not separable"]
    assert adjusted[1].p_holm == pytest.approx(2 * slight.p)
    assert adjusted[1].p == slight.p
