"""RiFT, robust critical fine-tuning (K. Zhu, X. Hu, J. Wang, X. Xie, G. Yang, ICCV 2023, arXiv 2308.02533).

From an adversarially trained model: find the module whose change hurts robustness least, fine-tune it alone on clean
images, then walk back along the line to the start as far as robustness asks.

    theta(a) = (1 - a) theta_AT + a theta_FT,   a* = argmax of clean accuracy over {0, .1, ..., 1}
    subject to  robust accuracy(theta(a)) >= robust accuracy(theta_AT) - tolerance

The release selects the epoch, a and the criticality data on the test set; here the epoch and a are selected on
validation data, and criticality is measured on training images. These stay part of the fine-tuning data: the start
model was trained on them already, so keeping them out would not make them unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robusteval.attacks.geometry import random_start
from robusteval.attacks.gradient import ascend
from robusteval.data.batches import Batch, DeviceSet
from robusteval.methods.base import Method, MethodParams, TrainingRun
from robusteval.methods.criticality import AscentSettings, candidates, module_criticality
from robusteval.methods.validation import robust_accuracy
from robusteval.models.classifier import Classifier
from robusteval.models.state import lerp_state
from robusteval.schema.digest import stable_int
from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.records import Budget
from robusteval.schema.specs import ComponentSpec
from robusteval.schema.types import (
    Epsilon,
    Fraction01,
    NonNegativeFloat,
    Norm,
    PositiveFloat,
    PositiveInt,
)

ATTACK_BATCH = 256
CACHE = "criticality.json"
"""Name of the criticality table in the cell's scratch space."""


class Params(MethodParams):
    """Hyper-parameters of RiFT."""

    epochs: PositiveInt = 10
    """Epochs of fine-tuning."""
    batch_size: PositiveInt = 128
    """Examples per optimiser step."""
    lr: PositiveFloat = 1e-3
    """Learning rate."""
    schedule: Literal["constant", "piecewise", "cosine", "cyclic"] = "piecewise"
    """`piecewise` here is one drop to a tenth at half of the epochs."""
    select: Literal["last", "best-validation"] = "best-validation"
    """Which epoch is interpolated towards, by clean validation accuracy."""
    augment: tuple[ComponentSpec, ...] = ()
    """Augmentations; the paper uses a reflecting pad-crop and a flip."""
    layer: str | None = None
    """Module to fine-tune; by default the least critical one. Given, criticality is not measured."""
    batch_norm: Literal["train", "frozen"] = "train"
    """`train`: running statistics of all batch norms follow the clean images and are interpolated too; every published
    number was made so, therefore the default. `frozen`: nothing but the module changes; the control that tells what the
    drift alone contributes."""
    epsilon: Epsilon = Epsilon("8/255")
    """Radius of the linf ball of all adversarial examples; that of the start model."""
    step_size: Epsilon = Epsilon("2/255")
    """Step of PGD; the release writes 2/225."""
    steps: PositiveInt = 10
    """Steps of PGD."""
    criticality_examples: PositiveInt = 5000
    """Training images that criticality is measured on, chosen by a hash of their ids."""
    criticality_radius: Fraction01 = 0.1
    """Largest change of a module, relative to the norm of its weights."""
    criticality_epochs: PositiveInt = 10
    """Ascent epochs."""
    criticality_lr: PositiveFloat = 1.0
    """Step of the ascent."""
    criticality_batch: PositiveInt = 512
    """Examples per ascent step."""
    interpolations: PositiveInt = 10
    """Steps between the two ends of the line."""
    tolerance: NonNegativeFloat = 0.001
    """Robust accuracy that may be lost on validation data, as a fraction (0.1 points)."""
    faithful: bool = False
    """Fine-tune, as the release does, every parameter whose name contains the module's name, biases and namesakes
    included, instead of the module's weight tensor alone."""


class Rift(Method[Params]):
    """Fine-tune the least robust-critical module on clean images and interpolate.

    Cost: at most 1 pass of each kind per optimiser step; criticality costs 20 forward and 10 backward passes per module
    and criticality example; the interpolation 11 evaluations under PGD on validation data.
    """

    Params = Params
    start = "required"
    counts_epochs = True
    selects_itself = True
    precisions = frozenset({"float32", "bfloat16"})
    shares = (0.5, 0.2)

    layer: str
    origin: dict[str, Tensor]
    _flags: list[tuple[nn.Parameter, bool]]

    def prepare(self, run: TrainingRun) -> None:
        """Choose the module and freeze everything else.

        Raises:
            UsageError: `layer` names no Conv2d or Linear module.
        """
        self.origin = copy_of(run.model)
        weights = candidates(run.model.network)
        if self.params.layer is not None and self.params.layer not in weights:
            raise UsageError(f"rift: params.layer: {unknown_name('module', self.params.layer, weights)}")
        self.layer = self.params.layer or self._least_critical(run)
        run.diagnostics["layer"] = self.layer
        self._flags = [(parameter, parameter.requires_grad) for parameter in run.model.parameters()]
        trained = {id(parameter) for parameter in self.trained(run.model.network)}
        for parameter, _ in self._flags:
            parameter.requires_grad_(id(parameter) in trained)

    def trained(self, network: nn.Module) -> Iterable[Tensor]:
        """The module's weight tensor, or with `faithful` all that its name matches."""
        if not self.params.faithful:
            return [candidates(network)[self.layer]]
        return [parameter for name, parameter in network.named_parameters() if self.layer in name]

    def _least_critical(self, run: TrainingRun) -> str:
        table = self.criticality(run)
        ranking = sorted(table, key=lambda name: table[name])
        run.diagnostics["criticality"] = {name: table[name] for name in ranking}
        return ranking[0]

    def criticality(self, run: TrainingRun) -> dict[str, float]:
        """Criticality by module; every finished module is kept in the scratch space, with the passes spent so far."""
        weights = candidates(run.model.network)
        settings = self._settings(run)
        before = run.model.passes.snapshot()
        table, spent = cached_table(run)
        missing = [name for name in weights if name not in table]
        if missing:
            adversarial = self.adversarial_examples(run)
        if table:  # what an earlier attempt spent replaces what making the same examples again has cost
            run.model.passes.forward = before.forward + spent.forward
            run.model.passes.backward = before.backward + spent.backward
        for name in missing:
            run.progress(len(table) / len(weights), f"criticality of {name}")
            table[name] = module_criticality(run.model, weights[name], name, adversarial, settings)
            if run.scratch is not None:
                run.scratch.put_json(CACHE, {"table": table, "spent": run.model.passes.since(before).model_dump()})
        return table

    def _settings(self, run: TrainingRun) -> AscentSettings:
        params = self.params
        return AscentSettings(
            radius=params.criticality_radius,
            epochs=params.criticality_epochs,
            lr=params.criticality_lr,
            batch_size=params.criticality_batch,
            seed=run.seed,
        )

    def adversarial_examples(self, run: TrainingRun) -> tuple[Tensor, Tensor]:
        """Adversarial images of the criticality examples, made once in evaluation mode, and their true labels."""
        params, epsilon = self.params, float(self.params.epsilon)
        positions = criticality_positions(run.train, params.criticality_examples).to(run.train.device)
        images, labels = [], []
        with run.model.frozen():
            for part in torch.split(positions, ATTACK_BATCH):
                batch = run.train.batch(part)
                start = random_start(
                    batch.images, batch.keys, norm=Norm.LINF, epsilon=epsilon, seed=run.seed, purpose="rift/criticality"
                )
                images.append(
                    ascend(
                        run.model,
                        batch.images,
                        batch.labels,
                        norm=Norm.LINF,
                        epsilon=epsilon,
                        step_size=float(params.step_size),
                        steps=params.steps,
                        start=start,
                    )
                )
                labels.append(batch.labels)
        return torch.cat(images), torch.cat(labels)

    def learning_rate(self, fraction: float) -> float | None:
        """The paper's one drop for `piecewise`; other schedules are the trainer's."""
        if self.params.schedule != "piecewise":
            return None
        return self.params.lr if fraction <= 0.5 else self.params.lr / 10

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Mean cross-entropy on clean images."""
        return cross_entropy(self.logits(model, batch.images), batch.labels)

    def finish(self, run: TrainingRun) -> None:
        """Measure the line between start and fine-tuned weights on validation data and stay at the best point."""
        tuned = copy_of(run.model)
        curve = []
        with run.selecting():
            for step in range(self.params.interpolations + 1):
                a = step / self.params.interpolations
                run.progress(a, f"interpolation {a:.2g}")
                run.model.load_state_dict(lerp_state(self.origin, tuned, a))
                curve.append(self._measure(run, a))
        chosen = choose(curve, self.params.tolerance)
        run.model.load_state_dict(lerp_state(self.origin, tuned, chosen["a"]))
        run.selected_on = "validation-robust"
        run.diagnostics["interpolation"] = [dict(point) for point in curve]
        run.diagnostics["interpolation_a"] = chosen["a"]
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)

    def _measure(self, run: TrainingRun, a: float) -> dict[str, float]:
        accuracy, loss = clean_scores(run.model, run.validation)
        robust = robust_accuracy(
            run.model, run.validation, norm=Norm.LINF, epsilon=float(self.params.epsilon), seed=run.seed
        )
        return {"a": a, "clean_accuracy": accuracy, "clean_loss": loss, "robust_accuracy": robust}

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """Fine-tuning, plus criticality where it is measured: reckoned for 20 modules on a tenth of the examples."""
        if params.layer is not None:
            return 1.0, 1.0
        share = 2.0 * params.criticality_epochs / params.epochs
        return 1.0 + 2.0 * share, 1.0 + share


def criticality_positions(data: DeviceSet, n: int) -> Tensor:
    """Positions of the `n` examples with the smallest hash of their id, or of all if there are fewer."""
    order = sorted(range(len(data)), key=lambda position: stable_int("criticality", data.ids[position]))
    return torch.tensor(sorted(order[:n]), dtype=torch.int64)


def cached_table(run: TrainingRun) -> tuple[dict[str, float], Budget]:
    """What an interrupted attempt has measured already, and the passes it had spent."""
    saved = run.scratch.get_json(CACHE) if run.scratch is not None else None
    if saved is None:
        return {}, Budget()
    return dict(saved["table"]), Budget.model_validate(saved["spent"])


def copy_of(model: Classifier) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def clean_scores(model: Classifier, data: DeviceSet) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on `data`, in evaluation mode."""
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    total = torch.zeros((), device=data.device)
    with model.mode(training=False):
        for batch in data.in_order(ATTACK_BATCH):
            logits = model(batch.images)
            correct += (logits.argmax(dim=1) == batch.labels).sum()
            total += cross_entropy(logits, batch.labels, reduction="sum")
    return float(correct) / len(data), float(total) / len(data)


def choose(curve: list[dict[str, float]], tolerance: float) -> dict[str, float]:
    """The point of largest clean accuracy among those that lose at most `tolerance` of the start's robust accuracy.

    Of equally accurate points the one with the smallest clean loss is taken, because accuracy saturates on small
    validation sets; then the one nearest to the start. The start qualifies.

    Args:
        curve: points with `a`, `clean_accuracy`, `clean_loss` and `robust_accuracy`; the first is the start.
        tolerance: fraction of the validation examples.
    """
    rounding = 1e-9
    kept = [point for point in curve if point["robust_accuracy"] >= curve[0]["robust_accuracy"] - tolerance - rounding]
    return max(kept, key=lambda point: (point["clean_accuracy"], -point["clean_loss"], -point["a"]))
