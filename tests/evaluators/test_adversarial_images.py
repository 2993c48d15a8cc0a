from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from robusteval.evaluators import adversarial_images, clerk, details
from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.adversarial_images import as_pixels, distance, rounded, saved_parts, tolerance
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.image_parts import decode_part
from robusteval.evaluators.replaying import Replayer
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.params import canonical_params
from robusteval.schema.threats import SpatialThreat
from robusteval.schema.types import Epsilon, Norm, ThreatModel
from robusteval.store.columns import read_columns
from robusteval.store.scratch import Scratch

THREAT = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("8/255"))
ENGINE = {
    "name": "autoattack",
    "params": {"version": "custom", "attacks": ["apgd-ce", "square"], "steps": 6, "queries": 20, "restarts": 1},
}
ATTACKS = ["fgsm", ENGINE, {"name": "torchattacks/PGD", "params": {"chunk": 16}}]


def evaluate(task, folder, keep="uint8", attacks=ATTACKS, threat=THREAT, cascade=True, data=None, progress=None):
    params = AdversarialParams.model_validate({"attacks": attacks, "checks": False, "keep": keep, "cascade": cascade})
    scratch = None if folder is None else Scratch(folder)
    context = EvaluationContext(threat=threat, scratch=scratch, batch_size=16)
    if progress is not None:
        context = EvaluationContext(threat=threat, scratch=scratch, batch_size=16, progress=progress)
    return AdversarialEvaluator(params).evaluate(task.model, task.data if data is None else data, context)


def images_in(folder, task, stages):
    """Every saved image by its example, and how many there are."""
    found, count = {}, 0
    for blob in saved_parts(Scratch(folder)):
        part = decode_part(
            blob, ids_digest=task.data.ids_digest, stages=stages, n=90, shape=tuple(task.model.input_shape)
        )
        found |= part
        count += len(part)
    return found, count


def stages_of(evaluation) -> list[str]:
    return [name for name in evaluation.outcomes if name not in ("clean", "robust")]


def broken_by(evaluation) -> dict[int, int]:
    """The first attack that broke each example."""
    stands = [evaluation.outcomes[name].unpack() for name in ("clean", *stages_of(evaluation))]
    first = {}
    for stage in reversed(range(1, len(stands))):
        first |= {i: stage - 1 for i in range(90) if stands[0][i] and not stands[stage][i]}
    return first


def replayed(task, evaluation, folder, threat=THREAT):
    replayer = Replayer(task.model, task.data, threat, evaluation)
    for blob in saved_parts(Scratch(folder)):
        replayer.part(blob)
    return replayer.report("0" * 64)


@pytest.fixture(scope="module")
def plain(task, tmp_path_factory):
    return evaluate(task, tmp_path_factory.mktemp("plain"), keep="none")


@pytest.mark.parametrize("keep", ["float", "uint8"])
def test_saving_changes_no_outcome_and_every_image_is_verified_again(keep, task, plain, tmp_path) -> None:
    found = evaluate(task, tmp_path, keep=keep)
    assert (found.outcomes, found.metrics, found.flags) == (plain.outcomes, plain.metrics, plain.flags)
    images, count = images_in(tmp_path, task, stages_of(found))
    assert count == len(images)
    assert {example: saved.stage for example, saved in images.items()} == broken_by(found)
    assert len(set(broken_by(found).values())) > 1
    columns, _ = read_columns(Scratch(tmp_path).get(details.BLOB) or b"")
    rounded_too = {example: int(columns["rounded"][example]) for example in images}
    assert rounded_too == {example: int(saved.image.dtype == np.uint8) for example, saved in images.items()}
    assert (columns["rounded"] >= 0).sum() == count
    report = replayed(task, found, tmp_path)
    assert report.failures == ()
    assert report.verified == report.saved == count
    assert report.rounded == (0 if keep == "float" else sum(x.image.dtype == np.uint8 for x in images.values()))
    assert (report.rounded > 0) == (keep == "uint8")


def test_without_the_cascade_the_image_of_the_first_attack_that_broke_an_example_is_kept(task, tmp_path) -> None:
    found = evaluate(task, tmp_path, attacks=["fgsm", "pgd"], cascade=False)
    images, _ = images_in(tmp_path, task, stages_of(found))
    assert {example: saved.stage for example, saved in images.items()} == broken_by(found)
    assert replayed(task, found, tmp_path).failures == ()


@pytest.mark.parametrize(("norm", "epsilon"), [("l2", "0.5"), ("l1", "4")])
def test_rounded_images_stay_in_the_other_balls_too(norm, epsilon, task, tmp_path) -> None:
    threat = ThreatModel(norm=Norm(norm), epsilon=Epsilon(epsilon))
    found = evaluate(task, tmp_path, attacks=[ENGINE], threat=threat)
    report = replayed(task, found, tmp_path, threat)
    assert report.failures == ()
    assert report.verified > 5


def test_parts_have_a_bounded_size(task, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(adversarial_images, "PART_BYTES", 1000)
    found = evaluate(task, tmp_path, attacks=["fgsm"])
    parts = list(saved_parts(Scratch(tmp_path)))
    assert len(parts) > 5
    for blob in parts:
        part = decode_part(blob, ids_digest=task.data.ids_digest, stages=["fgsm"], n=90, shape=(3, 10, 10))
        sizes = [saved.image.nbytes for saved in part.values()]
        assert sum(sizes[:-1]) < 1000 + max(sizes)
    assert replayed(task, found, tmp_path).verified == len(broken_by(found))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("when", ["before the journal", "after it"])
def test_a_killed_run_has_one_image_of_each_broken_example_in_the_end(when, task, plain, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clerk, "VERDICTS", 5)
    monkeypatch.setattr(adversarial_images, "PART_BYTES", 1500)
    generator = np.random.default_rng(0)
    write, found, kills = Scratch.put, None, 0
    for _ in range(60):
        left = [int(generator.integers(4, 14))]

        def put(self, name, blob, left=left):
            left[0] -= 1
            if when == "before the journal" and left[0] < 0 and name == "adversarial.json":
                raise KilledError
            write(self, name, blob)

        def progress(fraction, what, left=left):
            if when == "after it" and left[0] < 0:
                raise KilledError

        monkeypatch.setattr(Scratch, "put", put)
        try:
            found = evaluate(task, tmp_path, progress=progress)
        except KilledError:
            kills += 1
            continue
        break
    assert kills >= 3
    assert found is not None
    assert found.outcomes == plain.outcomes
    images, count = images_in(tmp_path, task, stages_of(found))
    assert count == len(images) == len(broken_by(found))
    assert replayed(task, found, tmp_path).failures == ()


def test_parts_of_another_question_are_removed(task, tmp_path) -> None:
    evaluate(task, tmp_path, attacks=["fgsm"])
    found = evaluate(task, tmp_path, attacks=["fgsm"], threat=THREAT.model_copy(update={"epsilon": Epsilon("4/255")}))
    _, count = images_in(tmp_path, task, stages_of(found))
    assert count == len(broken_by(found))


def test_images_need_a_place_and_a_ball(task, tmp_path) -> None:
    with pytest.raises(UsageError, match="needs scratch space"):
        evaluate(task, None)
    with pytest.raises(UsageError, match="for the balls linf, l2 and l1"):
        evaluate(task, tmp_path, attacks=["spatial"], threat=SpatialThreat(rotation=10.0, translation=0.1))


def test_saving_nothing_is_no_part_of_the_question() -> None:
    assert "keep" not in canonical_params(AdversarialParams())
    assert canonical_params(AdversarialParams(keep="uint8"))["keep"] == "uint8"


class Threshold(nn.Module):
    """Two classes: whether the first pixel lies above a bound."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        above = 1000 * (images.flatten(1)[:, :1] - self.bound)
        return torch.cat([-above, above], dim=1)


@pytest.mark.parametrize(
    ("bound", "found", "level"),
    [
        (103.9, 103.95, 104),  # the nearest level fools as well
        (103.1, 103.4, None),  # only between two levels does it fool
        (107.5, 107.65, None),  # the nearest level lies outside the ball, the one inside does not fool
        (106.5, 107.65, 107),  # the nearest level inside the ball
    ],
)
def test_a_rounded_image_is_kept_only_if_it_is_in_the_ball_and_fools_the_model(bound, found, level) -> None:
    model = Classifier(Threshold(bound / 255), classes=2, input_shape=(1, 2, 2), mean=[0.0], std=[1.0]).eval()
    threat = ThreatModel(norm=Norm.LINF, epsilon=Epsilon("0.03"))
    clean = torch.full((1, 1, 2, 2), 100.0) / 255.0
    adversarial = clean.clone()
    adversarial[0, 0, 0, 0] = found / 255
    levels, accepted = rounded(model, adversarial, clean, torch.tensor([0]), threat)
    assert accepted.tolist() == [level is not None]
    if level is not None:
        assert levels[0, 0].tolist() == [[level, 100], [100, 100]]


@pytest.mark.parametrize("norm", list(Norm))
def test_accepted_levels_lie_in_the_ball(norm) -> None:
    class Fooled(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 1.0]]).expand(len(images), 2)

    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (40, 3, 6, 6), generator=generator).float() / 255
    epsilon = {Norm.LINF: 0.03, Norm.L2: 0.3, Norm.L1: 2.0}[norm]
    threat = ThreatModel(norm=norm, epsilon=Epsilon(str(epsilon)))
    from robusteval.attacks.geometry import clip_to_threat

    noise = torch.randn(clean.shape, generator=generator)
    adversarial = clip_to_threat(clean + noise, clean, threat)
    model = Classifier(Fooled(), classes=2, input_shape=(3, 6, 6), mean=[0.0] * 3, std=[1.0] * 3).eval()
    levels, accepted = rounded(model, adversarial, clean, torch.zeros(40, dtype=torch.int64), threat)
    assert accepted.float().mean() > 0.9
    size = distance(as_pixels(levels)[accepted], clean[accepted], norm)
    assert float(size.max()) <= epsilon + tolerance(threat, 108)
    assert all(math.isfinite(value) for value in size.tolist())


def test_the_order_of_the_caller_names_the_examples(task, tmp_path) -> None:
    order = np.random.default_rng(3).permutation(90)
    shuffled = task.data.take(order)
    found = evaluate(task, tmp_path, attacks=["fgsm"], data=shuffled)
    replayer = Replayer(task.model, shuffled, THREAT, found)
    for blob in saved_parts(Scratch(tmp_path)):
        replayer.part(blob)
    report = replayer.report("0" * 64)
    assert report.failures == ()
    assert report.verified == sum(
        a and not b for a, b in zip(found.outcomes["clean"].unpack(), found.outcomes["robust"].unpack(), strict=True)
    )
    assert list(itertools.islice(saved_parts(Scratch(tmp_path / "nowhere")), 1)) == []
