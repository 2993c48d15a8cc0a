from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.active import attack_all
from robusteval.attacks.jobs import NEAR, STUCK, JobAttack, Step
from robusteval.attacks.symptoms import NAN_LOGITS, ZERO_GRADIENT
from robusteval.data.randomness import keyed_uniform
from robusteval.models.classifier import Classifier
from robusteval.models.forms import LOGIT_PATIENCE
from robusteval.models.search import SearchModel
from robusteval.models.search_plan import Precision
from robusteval.schema.errors import CellError
from robusteval.schema.types import Epsilon, Frozen, Norm, ThreatModel

SEED = 5
EPSILON = 0.1
THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.1"))


class GuessParams(Frozen):
    tries: int = 5
    restarts: int = 4


class Guess(JobAttack[GuessParams]):
    """Adds the same keyed random number to every pixel; remembers which jobs stood in each batch."""

    name = "guess"
    Params = GuessParams
    norms = frozenset(Norm)

    def __init__(self, slots: int, params: GuessParams | None = None) -> None:
        super().__init__(params or GuessParams(), THREAT)
        self.fitting = slots
        self.batches: list[list[tuple[int, int]]] = []

    def runs(self, classes):
        return self.params.restarts

    def begin(self, search, jobs, seed):
        age = torch.zeros_like(jobs.labels)
        return {"clean": jobs.images, "labels": jobs.labels, "keys": jobs.keys, "runs": jobs.runs, "age": age}

    def step(self, search, state):
        self.batches.append(list(zip(state["keys"].tolist(), state["runs"].tolist(), strict=True)))
        candidates = torch.cat(
            [
                guess(state["clean"][row : row + 1], key, run, age)
                for row, ((key, run), age) in enumerate(zip(self.batches[-1], state["age"].tolist(), strict=True))
            ]
        )
        claims = search.logits(candidates).argmax(dim=1) != state["labels"]
        state["age"] = state["age"] + 1
        return Step(candidates, claims, state["age"] >= self.params.tries)


def guess(clean: Tensor, key: int, run: int, age: int) -> Tensor:
    drawn = keyed_uniform(torch.tensor([key]), (1, 1, 1), seed=SEED, purpose=f"{run}/{age}")
    return (clean + (2 * drawn - 1) * EPSILON).clamp(0, 1)


@dataclass(frozen=True)
class Problem:
    """Class 1 above a mean of one half. `first` is each example's first success in the order of runs, or None."""

    model: Classifier
    images: Tensor
    labels: Tensor
    keys: Tensor
    first: list[tuple[int, int] | None]

    def attack(self, attack: JobAttack, order: Tensor | None = None, **more):
        order = torch.arange(len(self.labels)) if order is None else order
        return attack(self.model, self.images[order], self.labels[order], keys=self.keys[order], seed=SEED, **more)


def classifier(network: nn.Module) -> Classifier:
    return Classifier(network, classes=2, input_shape=(1, 2, 2), mean=[0.0], std=[1.0]).eval()


@pytest.fixture(scope="module")
def problem() -> Problem:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 4))
        layer.bias.copy_(torch.tensor([2.0, -2.0]))
    model = classifier(nn.Sequential(nn.Flatten(), layer))
    means = 0.5 + torch.linspace(-0.14, 0.14, 40)
    images = means[:, None, None, None].expand(-1, 1, 2, 2).clone()
    labels, keys = (means > 0.5).long(), 1000 + torch.arange(40)
    params = GuessParams()
    first = []
    for image, label, key in zip(images, labels.tolist(), keys.tolist(), strict=True):
        tries = [(run, age) for run in range(params.restarts) for age in range(params.tries)]
        wrong = [t for t in tries if int(model.predict(guess(image[None], key, *t))) != label]
        first.append(wrong[0] if wrong else None)
    return Problem(model, images, labels, keys, first)


@pytest.mark.parametrize("slots", [1, 3, 16, 200])
def test_verdicts_are_those_of_trying_every_run_whatever_the_slots_and_the_order(slots, problem) -> None:
    expected = torch.tensor([first is not None for first in problem.first])
    assert 10 < int(expected.sum()) < 35
    order = torch.randperm(40, generator=torch.Generator().manual_seed(slots))
    result = problem.attack(Guess(slots), order)
    assert torch.equal(result.broken, expected[order])
    assert [verdict.broken for verdict in result.verdicts] == result.broken.tolist()
    wrong = problem.model.predict(result.adversarial) != problem.labels[order]
    assert torch.equal(wrong, result.broken)


def test_the_run_and_step_that_broke_an_example_are_reported(problem) -> None:
    result = problem.attack(Guess(1))
    for verdict, first in zip(result.verdicts, problem.first, strict=True):
        expected = (-1, 20) if first is None else (first[0], first[1] + 1)
        assert (verdict.run, verdict.step) == expected
        assert verdict.margin == pytest.approx(float(result.margin[verdict.example]))
        assert verdict.norm == pytest.approx(float(result.norm[verdict.example]))


def test_passes_are_put_to_the_account_of_their_example(problem) -> None:
    result = problem.attack(Guess(1))
    for verdict, first in zip(result.verdicts, problem.first, strict=True):
        tries = 20 if first is None else 5 * first[0] + first[1] + 1
        assert (verdict.forward, verdict.backward) == (tries + (first is not None), 0)


@pytest.mark.parametrize(("slots", "pads"), [(1, True), (7, False), (64, False)])
def test_the_accounts_add_up_to_what_the_model_counted(slots: int, pads: bool, problem) -> None:
    before = problem.model.passes.snapshot()
    with problem.model.frozen():
        search = SearchModel(problem.model)
        search.prepare(problem.images)
        own = LOGIT_PATIENCE if pads else 0
        for _ in range(own):
            search.logits(problem.images[:1])
        search.adapt()
    nobodys = problem.model.passes.since(before).forward - own
    result = problem.attack(Guess(slots))
    clean = len(problem.labels)
    assert sum(verdict.forward for verdict in result.verdicts) == result.budget.forward - clean - nobodys


def test_while_examples_wait_each_has_one_run_and_afterwards_runs_fill_the_batch(problem) -> None:
    attack = Guess(8)
    problem.attack(attack)
    seen: set[int] = set()
    unstarted = []
    for batch in attack.batches:
        seen |= {key for key, _ in batch}
        unstarted.append(40 - len(seen))
    for batch, waiting in zip(attack.batches, unstarted, strict=True):
        assert len(batch) <= 8
        if waiting:
            assert len({key for key, _ in batch}) == len(batch) == 8
    tail = attack.batches[unstarted.index(0) + 1 :]
    assert any(len({key for key, _ in batch}) < len(batch) for batch in tail)


def test_free_slots_are_filled_again_before_the_batch_shrinks_by_an_eighth(problem) -> None:
    attack = Guess(16)
    problem.attack(attack)
    sizes = [len(batch) for batch in attack.batches]
    last_start = max(index for index, (old, new) in enumerate(pairwise(attack.batches)) if set(new) - set(old))
    assert min(sizes[: last_start + 1]) >= 15


def test_a_verdict_is_told_once_as_soon_as_it_is_final_with_the_callers_positions(problem) -> None:
    images, labels = problem.images.clone(), problem.labels.clone()
    labels[[3, 17]] = 1 - labels[[3, 17]]
    heard = []
    attack = Guess(4)
    result = attack(
        problem.model,
        images,
        labels,
        keys=problem.keys,
        seed=SEED,
        on_verdict=lambda verdict: heard.append((len(attack.batches), verdict)),
    )
    assert sorted(verdict.example for _, verdict in heard) == [i for i in range(40) if i not in (3, 17)]
    assert result.broken[[3, 17]].all()
    assert {verdict.example: verdict for _, verdict in heard} == {v.example: v for v in result.verdicts}
    assert heard[0][0] < len(attack.batches) / 4


class Scripted(Guess):
    """Claims its candidate at every step, whatever the model says."""

    def propose(self, clean: Tensor) -> Tensor:
        return clean

    def step(self, search, state):
        state["age"] = state["age"] + 1
        claims = torch.ones_like(state["labels"], dtype=torch.bool)
        return Step(self.propose(state["clean"]), claims, state["age"] >= self.params.tries)


def test_a_refuted_claim_counts_for_nothing_and_its_run_goes_on(problem) -> None:
    result = problem.attack(Scripted(8))
    assert not result.broken.any()
    assert torch.equal(result.adversarial, problem.images)
    assert {(verdict.step, verdict.forward) for verdict in result.verdicts} == {(20, 20)}


class Inverted(Scripted):
    def propose(self, clean: Tensor) -> Tensor:
        return 1 - clean


class InvertedAnywhere(Inverted):
    bounded = False


def test_only_the_clipped_candidate_counts(problem) -> None:
    far = ((problem.images[:, 0, 0, 0] - 0.5).abs() > EPSILON).nonzero().flatten()
    with pytest.raises(CellError, match=r"left the linf-0\.1 ball"):
        problem.attack(Inverted(8), far)
    result = problem.attack(InvertedAnywhere(8))
    assert torch.equal(result.broken, (problem.images[:, 0, 0, 0] - 0.5).abs() < EPSILON)
    assert float(result.norm.max()) <= EPSILON * (1 + 1e-5)


class Undefined(Scripted):
    def propose(self, clean: Tensor) -> Tensor:
        return clean * float("nan")


def test_a_candidate_with_nan_pixels_is_an_error_and_never_a_success(problem) -> None:
    with pytest.raises(CellError, match="'guess' returned NaN"):
        problem.attack(Undefined(8))


class Moving(Scripted):
    def propose(self, clean: Tensor) -> Tensor:
        return (clean + 0.01).clamp(0, 1)


class Dented(nn.Module):
    """Answers NaN on images whose first pixel lies a little above 0.3."""

    def forward(self, images: Tensor) -> Tensor:
        pixel = images[:, 0, 0, 0]
        logits = torch.stack([torch.ones_like(pixel), torch.zeros_like(pixel)], dim=1)
        return torch.where(((pixel > 0.305) & (pixel < 0.32))[:, None], float("nan"), logits)


def test_nan_logits_on_a_candidate_break_it_and_are_reported() -> None:
    images = torch.tensor([0.3, 0.5])[:, None, None, None].expand(-1, 1, 2, 2).clone()
    labels = torch.zeros(2, dtype=torch.int64)
    result = Moving(4)(classifier(Dented()), images, labels, keys=torch.arange(2), seed=0)
    assert result.broken.tolist() == [True, False]
    assert result.margin.isnan().tolist() == [True, False]
    assert result.symptoms == {NAN_LOGITS: 1}
    assert result.verdicts[0].symptoms == (NAN_LOGITS,)


class Stuck(Guess):
    """The gradient was zero in the second run alone."""

    def begin(self, search, jobs, seed):
        return super().begin(search, jobs, seed) | {STUCK: jobs.runs == 1}


@pytest.mark.parametrize("slots", [1, 16])
def test_zero_gradients_are_counted_once_for_each_survivor_and_not_for_the_broken(slots, problem) -> None:
    result = problem.attack(Stuck(slots))
    assert result.symptoms == {ZERO_GRADIENT: int((~result.broken).sum())}


class FastGuessParams(GuessParams):
    precision: Precision = "fast"


class Near(Guess):
    """Low precision sees no success; examples with an even key come near the boundary in their second run."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots, FastGuessParams())
        self.exactly: set[int] = set()

    def begin(self, search, jobs, seed):
        near = (jobs.keys % 2 == 0) & (jobs.runs == 1) & torch.tensor(search.precision == "fast")
        return super().begin(search, jobs, seed) | {NEAR: near}

    def step(self, search, state):
        step = super().step(search, state)
        if search.precision == "fast":
            return replace(step, claims=torch.zeros_like(step.claims))
        self.exactly |= set(state["keys"].tolist())
        return step


@pytest.mark.parametrize("slots", [1, 16])
def test_what_low_precision_leaves_near_the_boundary_is_attacked_again_in_float32(slots, problem) -> None:
    attack = Near(slots)
    result = problem.attack(attack)
    even = (problem.keys % 2 == 0).tolist()
    assert attack.exactly == {key for key in problem.keys.tolist() if key % 2 == 0}
    expected = [first is not None and again for first, again in zip(problem.first, even, strict=True)]
    assert result.broken.tolist() == expected
    assert any(expected)
    assert [verdict.example for verdict in result.verdicts] == list(range(40))


class Heavy(Guess):
    """Does not fit into memory with more than so many jobs."""

    def __init__(self, slots: int, room: int, where: str) -> None:
        super().__init__(slots)
        self.room, self.where = room, where

    def begin(self, search, jobs, seed):
        self._fit("begin", len(jobs))
        return super().begin(search, jobs, seed)

    def step(self, search, state):
        if len(self.batches) > 2:
            self._fit("step", len(state["age"]))
        return super().step(search, state)

    def _fit(self, where: str, count: int) -> None:
        if where == self.where and count > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("where", ["begin", "step"])
def test_too_little_memory_halves_the_slots_and_changes_no_verdict(where, problem) -> None:
    attack = Heavy(32, 9, where)
    result = problem.attack(attack)
    assert attack.fitting is not None
    assert attack.fitting <= 9
    assert result.broken.tolist() == [first is not None for first in problem.first]
    assert [verdict.example for verdict in result.verdicts] == list(range(40))


def test_no_room_for_a_single_example_is_an_error_that_says_so(problem) -> None:
    with pytest.raises(CellError, match="one example alone does not fit into the memory of cpu"):
        problem.attack(Heavy(32, 0, "begin"))


class Failing(Guess):
    def step(self, search, state):
        raise RuntimeError("a size mismatch")


def test_other_errors_are_not_taken_for_too_little_memory(problem) -> None:
    with pytest.raises(RuntimeError, match="a size mismatch"):
        problem.attack(Failing(8))


def test_a_shared_search_model_is_used_until_the_weights_change(problem) -> None:
    with problem.model.frozen():
        shared = SearchModel(problem.model)
        shared.prepare(problem.images)
    own = problem.attack(Guess(8))
    attack = Guess(8)
    attack.search = shared
    saved = own.budget.forward - problem.attack(attack).budget.forward
    assert saved > 0
    with torch.no_grad():
        next(problem.model.parameters()).add_(0.0)
    assert problem.attack(attack).budget == own.budget


def test_it_can_be_run_alone_and_on_nothing(problem) -> None:
    with problem.model.frozen():
        found = attack_all(Guess(8), problem.model, problem.images, problem.labels, keys=problem.keys, seed=SEED)
        nothing = attack_all(
            Guess(8), problem.model, problem.images[:0], problem.labels[:0], keys=problem.keys[:0], seed=SEED
        )
    assert torch.equal(found, problem.attack(Guess(8)).adversarial)
    assert nothing.shape == (0, 1, 2, 2)
