from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from robusteval.attacks.base import build_attack
from robusteval.attacks.geometry import perturbation_norm
from robusteval.attacks.gradient import ascend, negative_margin
from robusteval.attacks.jobs import Jobs, State
from robusteval.attacks.square import Square
from robusteval.attacks.square_windows import AHEAD, WindowPlan, pattern, window_mask, window_size
from robusteval.data.digits import Digits, DigitsParams
from robusteval.models.classifier import Classifier
from robusteval.models.search import SearchModel
from robusteval.models.small import SmallCnnNetwork
from robusteval.schema.types import Access, Component, Epsilon, Norm, ThreatModel

RADII = {Norm.LINF: "0.15", Norm.L2: "1.5", Norm.L1: "12"}
"""Radii at which a few hundred queries break some of the adversarially trained model's examples."""
WIDE = {Norm.LINF: "0.15", Norm.L2: "3", Norm.L1: "24"}
"""Radii at which seventy do."""
WORDS = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}


def square(norm: Norm, epsilon: str | None = None, **params: Any) -> Square:
    threat = ThreatModel(norm=norm, epsilon=Epsilon(epsilon or RADII[norm]), access=Access.SCORE)
    attack = build_attack(Component(name="square", params=params), threat)
    assert isinstance(attack, Square)
    return attack


@pytest.fixture(scope="session")
def robust():
    """A small CNN, adversarially trained on the digits, with 48 test examples it gets right."""
    torch.manual_seed(0)
    digits = Digits(DigitsParams())
    train, test = (digits.load("upright", split) for split in ("train", "test"))
    model = Classifier(
        SmallCnnNetwork(8, 10, (3, 16, 16)), classes=10, input_shape=(3, 16, 16), mean=digits.mean, std=digits.std
    )
    images, labels = (torch.as_tensor(part) for part in (train.images, train.labels))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(6):
        for batch in torch.randperm(len(labels)).split(64):
            model.eval()
            clean = as_floats(images[batch])
            worst = ascend(model, clean, labels[batch], norm=Norm.LINF, epsilon=0.1, step_size=0.05, steps=3)
            model.train()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(worst), labels[batch]).backward()
            optimizer.step()
    model.eval()
    model.zero_grad(set_to_none=True)
    images, labels, keys = (
        as_floats(torch.as_tensor(test.images)),
        torch.as_tensor(test.labels),
        torch.as_tensor(test.keys),
    )
    right = (model.predict(images) == labels).nonzero().flatten()[:48]
    return model, images[right], labels[right], keys[right]


def as_floats(images: Tensor) -> Tensor:
    return images.float() / 255


def begun(attack: Square, search: SearchModel, examples, seed: int = 0) -> State:
    images, labels, keys = examples
    jobs = Jobs(images, labels, keys, torch.zeros_like(labels), search.classifier(images).detach())
    return attack.begin(search, jobs, seed)


def final_margins(attack: Square, robust, seed: int, search: type[SearchModel] = SearchModel) -> Tensor:
    model, *examples = robust
    with model.frozen():
        form = search(model)
        state = begun(attack, form, examples, seed)
        for _ in range(attack.params.queries):
            attack.step(form, state)
    return state["margin"].clamp_min(0)


def reference_margins(norm: Norm, queries: int, robust, seed: int) -> Tensor:
    model, images, labels, _ = robust
    attack = SquareAttack(
        model, norm=WORDS[norm], n_queries=queries - 1, eps=float(Epsilon(RADII[norm])), p_init=0.8, resc_schedule=False
    )
    attack.init_hyperparam(images)
    with torch.random.fork_rng(), model.frozen(), torch.no_grad():
        torch.manual_seed(seed)
        _, adversarial = attack.attack_single_run(images, labels)
        return -negative_margin(model(adversarial), labels).clamp_max(0)


@pytest.mark.parametrize("norm", Norm)
def test_it_breaks_as_many_as_pyautoattack_and_leaves_margins_as_small(norm, robust) -> None:
    ours = torch.stack([final_margins(square(norm, queries=300), robust, seed) for seed in (0, 1)])
    theirs = torch.stack([reference_margins(norm, 300, robust, seed) for seed in (0, 1)])
    broken = (theirs == 0).sum(dim=1)
    assert 3 < broken.min() < 45
    seeds_differ_by = max(3, int(broken.diff().abs()))
    assert ((ours == 0).sum(dim=1) >= broken.max() - seeds_differ_by).all()
    means = theirs.mean(dim=1)
    assert ours.mean() <= means.mean() + max(means.diff().abs(), 0.05 * means.mean())


@pytest.mark.parametrize("norm", Norm)
def test_slots_order_and_company_change_nothing(norm, robust) -> None:
    model, images, labels, keys = robust
    images, labels, keys = images[:20], labels[:20], keys[:20]

    def run(slots: int, order: Tensor):
        attack = square(norm, WIDE[norm], queries=70)
        attack.fitting = slots
        result = attack(model, images[order], labels[order], keys=keys[order], seed=0)
        back = order.argsort()
        return result.adversarial[back], result.broken[back]

    straight = torch.arange(20)
    adversarial, broken = run(128, straight)
    assert 0 < int(broken.sum()) < 20
    for slots, order in [(1, straight), (7, straight.flip(0)), (128, straight.roll(5))]:
        again, broken_again = run(slots, order)
        assert torch.equal(broken_again, broken)
        assert torch.equal(again, adversarial)


@pytest.mark.parametrize("norm", Norm)
def test_every_candidate_stays_in_ball_and_box_and_the_margin_only_falls(norm, robust) -> None:
    model, *examples = robust
    images, labels, _ = examples
    attack, search = square(norm), SearchModel(model)
    with model.frozen():
        state = begun(attack, search, examples)
        for _ in range(80):
            before, best = state["margin"], state["best"].clone()
            step = attack.step(search, state)
            size = perturbation_norm(step.candidates - images, norm)
            assert (size <= float(attack.threat.epsilon) * (1 + 1e-5)).all()
            assert ((step.candidates >= 0) & (step.candidates <= 1)).all()
            better = state["margin"] < before
            assert torch.equal(state["best"], torch.where(better[:, None, None, None], step.candidates, best))
            assert (state["margin"] <= before).all()
        assert torch.allclose(state["margin"], -negative_margin(model(state["best"]), labels), atol=1e-5)


def test_linf_starts_from_stripes_and_paints_one_window_a_channel(robust) -> None:
    model, *examples = robust
    images, _, keys = examples
    attack, search = square(Norm.LINF), SearchModel(model)
    epsilon = float(attack.threat.epsilon)
    plan = WindowPlan((3, 16, 16), Norm.LINF, 0.8, images.device)
    _, drawn = plan.begin(keys, torch.zeros_like(keys), 0)
    with model.frozen():
        state = begun(attack, search, examples)
        start = attack.step(search, state).candidates
        inner = (images > epsilon) & (images < 1 - epsilon)
        assert torch.allclose((start - images).abs()[inner], torch.tensor(epsilon), atol=1e-6)
        up = ((start > images) | (images == 1)) & ~((start < images) | (images == 0))
        assert all(len(up[:, :, :, column][inner[:, :, :, column]].unique()) <= 2 for column in range(16))
        second = attack.step(search, state).candidates
    mask = window_mask(drawn.windows[:, 1], 16, 16).expand_as(second).bool()
    painted = (images + torch.where(drawn.signs[:, 1], epsilon, -epsilon)[:, :, None, None]).clamp(0, 1)
    assert torch.allclose(second, torch.where(mask, painted, start), atol=1e-7)


def test_a_move_in_l2_keeps_the_direction_outside_and_spends_the_whole_radius() -> None:
    # Grey images under a small radius never touch the box.
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    model = Classifier(network, classes=4, input_shape=(3, 16, 16), mean=[0.5] * 3, std=[0.2] * 3).eval()
    images, labels, keys = torch.full((12, 3, 16, 16), 0.5), torch.zeros(12, dtype=torch.int64), torch.arange(12)
    plan = WindowPlan((3, 16, 16), Norm.L2, 0.8, images.device)
    attack, search = square(Norm.L2, "0.3"), SearchModel(model)
    with model.frozen():
        state = begun(attack, search, (images, labels, keys))
        for query in range(60):
            old = state["best"] - images
            new = attack.step(search, state).candidates - images
            windows = plan.proposals(keys, torch.zeros_like(keys), torch.full_like(keys, query), 0).windows[:, 0]
            inside = torch.maximum(*(window_mask(part, 16, 16) for part in windows.split(4, dim=1)))
            assert torch.allclose(new.flatten(1).norm(dim=1), torch.tensor(0.3), atol=1e-5)
            outside = (1 - inside) * old
            ratio = (new * outside).sum((1, 2, 3)) / outside.square().sum((1, 2, 3)).clamp_min(1e-9)
            assert torch.allclose(new * (1 - inside), ratio[:, None, None, None] * outside, atol=1e-5)
            only_second = window_mask(windows[:, 4:], 16, 16) * (1 - window_mask(windows[:, :4], 16, 16))
            assert (new * only_second == 0).all()


@pytest.mark.parametrize("norm", Norm)
def test_window_sizes_follow_the_published_schedule(norm) -> None:
    reference = SquareAttack(None, p_init=0.8, n_queries=10_000, resc_schedule=False)
    plan = WindowPlan((3, 32, 32), norm, 0.8, torch.device("cpu"))
    key = torch.tensor([5])
    for first in range(1, 9000, AHEAD):
        windows = plan.proposals(key, torch.zeros_like(key), torch.tensor([first]), 0).windows[0]
        sides = windows[:, 2] - windows[:, 0]
        assert torch.equal(sides, windows[:, 3] - windows[:, 1])
        for query, side in enumerate(sides.tolist(), start=first):
            wanted = round((reference.p_selection(query - 1) * 32 * 32) ** 0.5)
            if norm is not Norm.LINF:
                wanted = max(wanted, 3) // 2 * 2 + 1
            assert side == max(wanted, 1)


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1])
@pytest.mark.parametrize("side", [3, 4, 5, 11, 16])
def test_patterns_are_those_of_pyautoattack(norm, side) -> None:
    reference = SquareAttack(None, norm=WORDS[norm])
    reference.device = torch.device("cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = reference.eta(side)
    ours = pattern(side, side, norm)
    assert torch.allclose(theirs, ours, atol=1e-6) or torch.allclose(theirs, ours.T, atol=1e-6)


@pytest.mark.parametrize("norm", Norm)
def test_windows_reach_every_row_and_column_equally_often(norm) -> None:
    keys = torch.arange(2000) * 977
    plan = WindowPlan((3, 9, 14), norm, 0.8, torch.device("cpu"))
    windows = plan.proposals(keys, torch.zeros_like(keys), torch.full_like(keys, 4500), 0).windows
    for which in range(0, windows.shape[-1], 4):
        top, left, bottom, right = windows[..., which : which + 4].flatten(0, 1).T
        height, width = int(bottom[0] - top[0]), int(right[0] - left[0])
        assert torch.equal(bottom - top, torch.full_like(top, height))
        assert torch.equal(right - left, torch.full_like(left, width))
        for start, places in ((top, 9 - height + 1), (left, 14 - width + 1)):
            counts = torch.bincount(start, minlength=places).double()
            assert len(counts) == places
            expected = len(start) / places
            # 99.9999 % quantile of chi-square with at most 13 degrees of freedom
            assert float(((counts - expected) ** 2 / expected).sum()) < 60


def test_draws_depend_on_key_run_and_seed_and_not_on_where_drawing_starts() -> None:
    plan = WindowPlan((3, 32, 32), Norm.L2, 0.8, torch.device("cpu"))
    keys, runs = torch.tensor([7, 7, 2**61 + 1]), torch.tensor([0, 1, 0])
    bits, first = plan.begin(keys, runs, 0)
    later = plan.proposals(keys, runs, torch.tensor([40, 40, 40]), 0)
    assert torch.equal(first.windows[:, 40:], later.windows[:, : AHEAD - 40])
    assert torch.equal(first.signs[:, 40:], later.signs[:, : AHEAD - 40])
    assert torch.equal(first.patterns[:, 40:], later.patterns[:, : AHEAD - 40])
    assert (first.windows[:, 0, 0:2] == first.windows[:, 0, 2:4]).all()
    other_bits, other = plan.begin(keys, runs, 1)
    assert not torch.equal(bits, other_bits)
    assert not torch.equal(first.windows, other.windows)
    assert not torch.equal(bits[0], bits[1])
    assert not torch.equal(first.windows[0], first.windows[1])
    assert not torch.equal(first.windows[0], first.windows[2])


def test_signs_and_turns_are_fair() -> None:
    plan = WindowPlan((3, 8, 8), Norm.L2, 0.8, torch.device("cpu"))
    keys = torch.arange(500)
    drawn = plan.proposals(keys, torch.zeros_like(keys), torch.ones_like(keys), 0)
    draws = torch.cat([drawn.signs, (drawn.patterns % 2 == 1)[..., None]], dim=-1).flatten(0, 1).double()
    assert torch.allclose(draws.mean(dim=0), torch.tensor(0.5).double(), atol=0.015)
    assert torch.allclose(torch.corrcoef(draws.T), torch.eye(4).double(), atol=0.03)


def test_windows_of_oblong_images_keep_their_area() -> None:
    assert window_size(0.8, 32, 32) == (29, 29)
    assert window_size(0.8, 8, 32) == (8, 26)
    assert window_size(0.8, 32, 8) == (26, 8)
    assert window_size(0.2, 8, 32) == (7, 7)
    assert window_size(0.0125, 224, 160, smallest=3, odd=True) == (21, 21)
    assert window_size(0.0001, 3, 2, smallest=3, odd=True) == (3, 2)


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("shape", [(1, 5, 17), (4, 20, 3)])
def test_oblong_images_are_attacked(norm, shape) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(shape[0] * shape[1] * shape[2], 2, bias=False)
    direction = torch.randn(layer.in_features, generator=generator)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([direction, -direction]))
    model = Classifier(
        nn.Sequential(nn.Flatten(), layer), classes=2, input_shape=shape, mean=[0.5] * shape[0], std=[1.0] * shape[0]
    ).eval()
    dual = {Norm.LINF: direction.abs().sum(), Norm.L2: direction.norm(), Norm.L1: direction.abs().max()}[norm]
    distances = torch.tensor([0.3, 1.1]).repeat_interleave(10) * 0.1
    images = (0.5 + distances[:, None] * dual * direction / direction.norm() ** 2).view(-1, *shape)
    assert ((images > 0) & (images < 1)).all()
    labels = torch.zeros(20, dtype=torch.int64)
    result = square(norm, "0.1", queries=400)(model, images, labels, keys=torch.arange(20), seed=0)
    assert result.broken.tolist() == [True] * 10 + [False] * 10


def test_a_survivor_costs_its_queries_and_three_passes_more_at_most(robust) -> None:
    model, images, labels, keys = robust
    attack = square(Norm.LINF, "1e-5", queries=70, restarts=2)
    result = attack(model, images, labels, keys=keys, seed=0)
    assert not result.broken.any()
    forward, backward = Square.passes(attack.params, 10)
    assert (forward, backward) == (143, 0)
    assert 140 * 48 < result.budget.forward <= forward * 48
    assert result.budget.backward == 0


def test_restarts_only_add_broken_examples(robust) -> None:
    model, images, labels, keys = robust
    one = square(Norm.LINF, queries=60)(model, images, labels, keys=keys, seed=0)
    three = square(Norm.LINF, queries=60, restarts=3)(model, images, labels, keys=keys, seed=0)
    assert (three.broken | ~one.broken).all()
    assert int(three.broken.sum()) > int(one.broken.sum())


class Rounding(SearchModel):
    """A search model whose low precision adds an error like that of bfloat16, of its own for each image."""

    low_error = 0.02

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier, "fast")

    def low_logits(self, images: Tensor) -> Tensor:
        logits = super().exact_logits(images)
        seeds = (images.double().flatten(1).sum(dim=1) * 1e6).long() % 1000
        return logits + self.low_error * torch.sin(seeds[:, None] * torch.arange(1, 11) * 12.9898) * 2**0.5


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_float32_decides_whatever_low_precision_lets_through(norm, robust) -> None:
    model, *examples = robust
    attack, search = square(norm), Rounding(model)
    with model.frozen():
        search.at("exact").prepare(examples[0])
        state = begun(attack, search, examples)
        rejected = 0
        for _ in range(60):
            before, passes = state["margin"], model.passes.snapshot()
            step = attack.step(search, state)
            spent = model.passes.since(passes).forward
            assert step.forward is not None
            assert spent == int(step.forward.sum())
            rejected += int((step.forward == 1).sum())
            exact = -negative_margin(model(step.candidates), examples[1])
            changed = state["margin"] < before
            assert torch.allclose(state["margin"][changed], exact[changed], atol=1e-5)
            # What is lost by screening was an improvement of no more than the noise.
            lost = (exact < before - 8 * search.low_error) & ~changed
            assert not lost.any()
    assert rejected > 20 * 48


def test_screening_costs_no_strength(robust) -> None:
    attack = square(Norm.LINF, queries=300)
    exact = torch.stack([final_margins(attack, robust, seed) for seed in (0, 1)])
    screened = torch.stack([final_margins(attack, robust, seed, Rounding) for seed in (0, 1)])
    spread = max(float(exact.mean(dim=1).diff().abs()), 0.03 * float(exact.mean()))
    assert screened.mean() <= exact.mean() + spread
