from __future__ import annotations

import numpy as np
import pytest

from robusteval.schema.records import Metric, ResultRecord
from robusteval.scoring.domain_summaries import spreads
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.render import flat_rows
from robusteval.scoring.table import score
from robusteval.stats.intervals import clopper_pearson, simultaneous_low


def test_one_domain_has_the_exact_one_sided_bound() -> None:
    assert simultaneous_low(0.7, 40, 1) == pytest.approx(clopper_pearson(28, 40, 0.90)[0])
    assert simultaneous_low(0.0, 40, 3) == 0.0


def test_the_bound_holds_for_whichever_domain_is_worst() -> None:
    rng = np.random.default_rng(0)
    truth, n, draws = np.array([0.7, 0.7, 0.72, 0.7]), 50, 2000
    found = rng.binomial(n, truth, size=(draws, 4)) / n
    held = [min(simultaneous_low(value, n, 4) for value in row) <= truth.min() for row in found]
    assert np.mean(held) >= 0.95


def test_the_worst_domain_of_a_table_has_both_bounds(world) -> None:
    table = score(world.plan(), world.records, world.groups)
    for row in table.rows:
        worst = row.worst["a_ood"]
        assert worst.simultaneous_low < worst.low or worst.value == worst.low
    assert "a_ood_worst_simultaneous_low" in flat_rows(table)[0]


def outcomes(table: dict[str, list[float]], n: int = 100) -> Outcomes:
    """Accuracies by domain, one a seed."""
    right = [
        [index < round(n * accuracy) for accuracy in (row[seed] for row in table.values()) for index in range(n)]
        for seed in range(len(next(iter(table.values()))))
    ]
    domains = tuple(name for name in table for _ in range(n))
    groups = tuple(map(str, range(len(domains))))
    return Outcomes(tuple(range(len(right))), np.array(right), domains, groups, False, "0" * 64)


def test_spread_is_told_apart_by_domain_and_seed() -> None:
    found = spreads({"a_ood": outcomes({"photo": [0.8, 0.9], "sketch": [0.4, 0.5]})})["a_ood"]
    assert (found.splits, found.seeds) == (2, 2)
    assert found.split_sd == pytest.approx(np.sqrt(0.08))
    assert found.seed_sd == pytest.approx(np.sqrt(0.005))
    assert found.rest_sd == pytest.approx(0.0, abs=1e-12)


def test_one_seed_or_one_domain_has_no_spread() -> None:
    assert spreads({"a_ood": outcomes({"photo": [0.8], "sketch": [0.4]}), "a_id": None}) == {}
    assert spreads({"a_ood": outcomes({"photo": [0.8, 0.9]})}) == {}


def test_what_a_shift_leaves_is_a_share_with_an_interval(world) -> None:
    table = score(world.plan(), world.records, world.groups)
    for row in table.rows:
        kept = row.gaps.retention
        assert kept.value == pytest.approx(row.a_ood.value / row.a_id.value)
        assert kept.low <= kept.value <= kept.high
        assert kept.interval == "mover"


def test_calibration_is_told_for_every_domain(world) -> None:
    for row in world.rows:
        record = world.records[row.cells["a_ood"]]
        own = Metric(name="ece/rotated", value=0.1 if row.seed == 0 else 0.3, n=40)
        evaluation = record.evaluation.model_copy(update={"metrics": (*record.evaluation.metrics, own)})
        world.records[record.cell_key] = ResultRecord.model_validate(
            record.model_copy(update={"evaluation": evaluation}).model_dump()
        )
    table = score(world.plan(), world.records, world.groups)
    found = {(entry.side, entry.domain): entry.ece for entry in table.rows[0].domains}
    assert found == {("id", "upright"): None, ("ood", "rotated"): pytest.approx(0.2), ("ood", "inverted"): None}
