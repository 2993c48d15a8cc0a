"""An evaluation in shares gives the record of an evaluation in one piece."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.data.imageset import ImageSet
from robusteval.evaluators import clerk
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.adversarial_images import saved_parts
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.clean import CleanEvaluator, CleanParams
from robusteval.evaluators.details import BLOB as DETAILS
from robusteval.evaluators.shard_file import decode_shard
from robusteval.evaluators.sharding import evaluate_shard, merge_shards, refusal, shard_positions
from robusteval.schema.errors import CorruptRecordError, UsageError
from robusteval.schema.records import Evaluation
from robusteval.schema.shards import Shard, shards_of
from robusteval.schema.types import Epsilon, Norm, ThreatModel
from robusteval.store.scratch import Scratch

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.03"))
ONE_RUN = [
    {"name": "pgd", "params": {"steps": 3}},
    {"name": "apgd-ce", "params": {"steps": 4, "restarts": 1}},
    {"name": "square", "params": {"queries": 20}},
]
"""Attacks with one run an example: everything about them is independent of the share."""
SHORT = {"version": "custom", "attacks": ["apgd-ce", "apgd-t", "fab-t", "square"], "steps": 4, "queries": 20}
AUTOATTACK = [{"name": "autoattack", "params": SHORT}]
TWO_STAGE = [{"name": "autoattack", "params": {**SHORT, "mode": "two-stage", "share": 0.5}}]


def evaluator(attacks, **params) -> AdversarialEvaluator:
    return AdversarialEvaluator(AdversarialParams.model_validate({"attacks": attacks, **params}))


def whole(task, folder: Path, measure: AdversarialEvaluator, data: ImageSet | None = None):
    scratch = Scratch(folder / "whole")
    context = EvaluationContext(threat=THREAT, seed=1, scratch=scratch)
    found = measure.evaluate(task.model, task.data if data is None else data, context)
    return found, scratch


def divided(task, folder: Path, measure: AdversarialEvaluator, count: int, data: ImageSet | None = None):
    data = task.data if data is None else data
    blobs, parts = [], {}
    for shard in shards_of(len(data), count):
        scratch = Scratch(folder / str(shard))
        context = EvaluationContext(threat=THREAT, seed=1, scratch=scratch, batch_size=17)
        blobs.append(evaluate_shard(measure, task.model, data, context, shard).encode())
        parts[shard] = list(saved_parts(scratch))
    scratch = Scratch(folder / "merged")
    context = EvaluationContext(threat=THREAT, seed=1, scratch=scratch)
    shards = [decode_shard(blob) for blob in reversed(blobs)]
    found = merge_shards(measure, task.model, data, context, shards, lambda one: parts[one.found.shard])
    return found, scratch


def without_cost(evaluation: Evaluation) -> Evaluation:
    return evaluation.model_copy(update={"budget": evaluation.budget.__class__()})


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_record_is_byte_equal_where_an_attack_has_one_run_an_example(task, tmp_path, count) -> None:
    measure = evaluator(ONE_RUN, keep="uint8")
    expected, kept = whole(task, tmp_path, measure)
    found, merged = divided(task, tmp_path, measure, count)
    assert found.model_dump_json() == expected.model_dump_json()
    assert merged.get(DETAILS) == kept.get(DETAILS)
    assert list(saved_parts(merged)) == list(saved_parts(kept))
    assert 5 < sum(found.outcomes["robust"].unpack()) < sum(found.outcomes["clean"].unpack()) - 5


@pytest.mark.parametrize("verdicts", [1, 5, 1000])
def test_the_budget_does_not_depend_on_how_often_verdicts_are_written_down(
    task, tmp_path, monkeypatch, verdicts
) -> None:
    measure = evaluator(ONE_RUN[1:2], keep="uint8", checks=False)
    monkeypatch.setattr(clerk, "SECONDS", 1e9)
    expected, _ = whole(task, tmp_path / "expected", measure)
    monkeypatch.setattr(clerk, "VERDICTS", verdicts)
    found, _ = whole(task, tmp_path / "found", measure)
    assert found.budget == expected.budget


@pytest.mark.parametrize("attacks", [AUTOATTACK, TWO_STAGE], ids=["full", "two-stage"])
@pytest.mark.parametrize("cascade", [True, False])
def test_outcomes_metrics_and_flags_of_autoattack_are_those_of_one_piece(task, tmp_path, attacks, cascade) -> None:
    measure = evaluator(attacks, cascade=cascade)
    expected, _ = whole(task, tmp_path, measure)
    found, _ = divided(task, tmp_path, measure, 3)
    assert without_cost(found) == without_cost(expected)


def test_every_example_is_in_exactly_one_share(task) -> None:
    for count in (1, 2, 7, 90):
        places = [place for shard in shards_of(90, count) for place in shard_positions(task.data, shard).tolist()]
        assert sorted(places) == list(range(90))


@given(st.integers(1, 200), st.integers(1, 300))
def test_shares_cover_the_examples_and_none_is_empty(n: int, count: int) -> None:
    shards = shards_of(n, count)
    bounds = [shard.bounds(n) for shard in shards]
    assert [low for low, _ in bounds] == [0, *(high for _, high in bounds[:-1])]
    assert bounds[-1][1] == n and len(shards) == min(n, count)
    sizes = [high - low for low, high in bounds]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


def test_domains_with_classes_of_their_own_are_divided_alike(task, tmp_path) -> None:
    pairs = zip(task.data.domains, task.data.labels, strict=True)
    some = task.data.take([place for place, (name, label) in enumerate(pairs) if name == "plain" or label < 3])
    data = ImageSet(
        images=some.images, labels=some.labels, ids=some.ids, groups=some.groups, domains=some.domains,
        classes=some.classes, subsets={"dimmed": (0, 1, 2)},
    )  # fmt: skip
    measure = evaluator(ONE_RUN, budget=20)
    expected, _ = whole(task, tmp_path, measure, data)
    found, _ = divided(task, tmp_path, measure, 4, data)
    assert found.model_dump_json() == expected.model_dump_json()
    assert any(flag.code == "budget" for flag in found.flags)


class KilledError(Exception):
    pass


def test_a_share_that_was_killed_goes_on_and_ends_the_same(task, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clerk, "VERDICTS", 2)
    measure = evaluator(ONE_RUN)
    shard = Shard(index=1, count=2)
    plain = EvaluationContext(threat=THREAT, scratch=Scratch(tmp_path / "plain"))
    expected = evaluate_shard(measure, task.model, task.data, plain, shard)
    kills = 0
    for left in (3, 6, 10, 1000):
        reports = iter(range(left))

        def report(fraction: float, what: str, reports=reports) -> None:
            if next(reports, None) is None:
                raise KilledError

        context = EvaluationContext(threat=THREAT, scratch=Scratch(tmp_path / "killed"), progress=report)
        try:
            found = evaluate_shard(measure, task.model, task.data, context, shard)
        except KilledError:
            kills += 1
    assert kills == 3
    assert {name: part.stands for name, part in found.found.parts.items()} == {
        name: part.stands for name, part in expected.found.parts.items()
    }
    assert found.found.repeated == expected.found.repeated


def test_putting_together_makes_no_pass(task, tmp_path) -> None:
    measure = evaluator(ONE_RUN)
    shards = []
    for shard in shards_of(90, 2):
        context = EvaluationContext(threat=THREAT)
        shards.append(evaluate_shard(measure, task.model, task.data, context, shard))
    before = task.model.passes.snapshot()
    merge_shards(measure, task.model, task.data, EvaluationContext(threat=THREAT), shards)
    assert task.model.passes.since(before).forward == 0


@pytest.fixture(scope="module")
def shares(task):
    measure = evaluator(ONE_RUN[:1])
    context = EvaluationContext(threat=THREAT)
    return measure, [evaluate_shard(measure, task.model, task.data, context, shard) for shard in shards_of(90, 3)]


def test_a_missing_share_is_named(task, shares) -> None:
    measure, found = shares
    with pytest.raises(CorruptRecordError, match="not complete; there are 1of3, 3of3"):
        merge_shards(measure, task.model, task.data, EvaluationContext(threat=THREAT), [found[0], found[2]])


def test_a_share_of_another_seed_is_named(task, shares) -> None:
    measure, found = shares
    with pytest.raises(CorruptRecordError, match="share 1of3 is of another evaluation"):
        merge_shards(measure, task.model, task.data, EvaluationContext(threat=THREAT, seed=5), found)


@pytest.mark.parametrize("damage", [slice(0, 40), slice(200, None), slice(0, 0)])
def test_a_damaged_file_is_refused(shares, damage) -> None:
    with pytest.raises(CorruptRecordError):
        decode_shard(shares[1][0].encode()[damage])


def test_what_depends_on_its_company_is_refused_with_the_reason() -> None:
    chunked = evaluator([{"name": "torchattacks/PGD", "params": {"chunk": 16}}])
    assert "influence each other" in (refusal(chunked, THREAT) or "")
    assert "few passes" in (refusal(CleanEvaluator(CleanParams()), None) or "")
    assert refusal(evaluator(AUTOATTACK), THREAT) is None
    with pytest.raises(UsageError, match="measure it in one piece"):
        evaluate_shard(chunked, None, None, EvaluationContext(threat=THREAT), Shard(index=0, count=2))
