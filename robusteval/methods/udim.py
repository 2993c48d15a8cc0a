"""UDIM, unknown domain inconsistency minimisation (Shin et al., ICLR 2024, arXiv 2403.07329).

After a warm-up with SAM, every step moves the images to an adversarial "unknown domain", where the loss and its
sharpness are large, and penalises the inconsistency of the classifier's per-example gradients between both places:

    L = CE(f(x), y),  g = grad_w L,  e = rho g / ||g||,  J = L + rho ||g||,  x~ = x + eta normalise(grad_x J)
    step with  grad_w CE(f_{w+e}(x), y) + weight * grad_w P(x, x~)

normalise acts in the network's normalised input space, and x~ is not clipped to the pixel box. P is
`classifier_gradients.inconsistency`.

Deviations from the release, which normalises phase 2 with batch statistics in evaluation too (the result then depends
on what else is in the test batch): batch norm is standard here, and its running statistics see the clean images only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robusteval.data.batches import Batch
from robusteval.methods import sam
from robusteval.methods.base import Method, MethodParams, TrainingRun
from robusteval.methods.batch_norm import running_statistics_kept
from robusteval.methods.classifier_gradients import ClassifierGradients, domain_weights, inconsistency
from robusteval.methods.optimizers import load_optimizer_tensors, optimizer_tensors
from robusteval.methods.validation import clean_accuracy
from robusteval.models.classifier import Classifier
from robusteval.models.heads import features_and_logits, find_head
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Fraction01, NonNegativeFloat, PositiveFloat


class Params(MethodParams):
    """Hyper-parameters of UDIM."""

    optimizer: Literal["sgd", "adam"] = "adam"
    """Optimiser; Adam in the paper."""
    lr: PositiveFloat = 1e-3
    """Learning rate; the paper fine-tunes ImageNet models with 3e-5."""
    weight_decay: NonNegativeFloat = 1e-4
    """L2 penalty."""
    schedule: Literal["constant", "piecewise", "cosine", "cyclic"] = "constant"
    """Learning rate over the run."""
    precision: Literal["float32"] = "float32"
    """Two double backward passes leave no room for less."""
    warmup: Fraction01 = 0.2
    """Fraction of all steps that are SAM steps (the release's `sam_warm_up_ratio` 5)."""
    reload: bool = True
    """Start phase 2 from the warm-up epoch with the best validation accuracy, optimiser state included."""
    rho: NonNegativeFloat = 0.05
    """Radius of SAM's weight perturbation."""
    weight: NonNegativeFloat = 1.0
    """Weight of the inconsistency penalty (lambda)."""
    norm: Literal["sample", "batch"] = "sample"
    """`sample` gives every image a displacement of the same length; `batch`, as released, divides each pixel coordinate
    by its norm across the batch, so that an image's displacement depends on its neighbours."""
    eta: NonNegativeFloat = 1.44
    """Root mean square displacement per coordinate in the network's normalised units; the released `batch` form has the
    factor 10 instead, which amounts to 1.44 in its batches of 48."""
    per_domain: bool = True
    """Penalise every training domain by itself and add up."""


class _InPlace(Protocol):
    """A module that may overwrite its input."""

    inplace: bool


class Udim(Method[Params]):
    """Minimise sharpness at the source and inconsistency with an unknown domain.

    Cost: about 5 times ERM after the warm-up, 2 times during it.
    """

    Params = Params

    _sam: sam.Sam
    _best: dict[str, Tensor]
    _best_accuracy: float
    _in_place: list[_InPlace]

    def prepare(self, run: TrainingRun) -> None:
        """Turn in-place activations off: the graph of the first pass is differentiated twice."""
        self._sam = sam.Sam(sam.Params(rho=self.params.rho))
        self._best, self._best_accuracy = {}, -1.0
        modules = (module for module in run.model.modules() if getattr(module, "inplace", False) is True)
        self._in_place = [cast(_InPlace, module) for module in modules]
        for module in self._in_place:
            module.inplace = False

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Cross-entropy on clean images, the part of the objective without perturbations."""
        return cross_entropy(model(batch.images), batch.labels)

    def begin_epoch(self, run: TrainingRun) -> None:
        """Remember the best warm-up epoch so far."""
        if self.params.reload and 0 < run.iteration < self.warmup_steps(run):
            self._consider(run)

    def warmup_steps(self, run: TrainingRun) -> int:
        """Steps of phase 1."""
        return math.floor(run.total_iterations * self.params.warmup + 1e-9)

    def step(self, run: TrainingRun, batch: Batch) -> Tensor:
        """A SAM step during the warm-up, else lines 1 to 10 of the algorithm."""
        first = self.warmup_steps(run)
        if run.iteration < first:
            return self._sam.step(run, batch)
        if run.iteration == first > 0 and self.params.reload:
            self._consider(run)
            self._reload(run)
        return self._second_phase(run, batch)

    def _second_phase(self, run: TrainingRun, batch: Batch) -> Tensor:
        assert run.optimizer is not None
        model = run.model
        weights = [w for group in run.optimizer.param_groups for w in group["params"] if w.requires_grad]
        moved, gradients, loss = unknown_domain(model, batch, weights, self.params)
        offsets = sam.sharpness_ascent(weights, gradients, rho=self.params.rho)
        with running_statistics_kept(model):
            sharp = self._gradient_at(model, batch, weights, offsets)
            penalty = self.penalty(model, batch, moved, domains=len(run.train.domain_names))
            consistent = torch.autograd.grad(penalty, weights, allow_unused=True)
        for w, g_sam, g_penalty in zip(weights, sharp, consistent, strict=True):
            w.grad = g_sam if g_penalty is None else g_sam.add(g_penalty, alpha=self.params.weight)
        run.optimizer.step()
        return loss

    def _gradient_at(
        self, model: Classifier, batch: Batch, weights: Sequence[Tensor], offsets: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Line 5: gradient of the loss at weights plus offsets; the weights come back bit for bit."""
        with sam.moved_weights(weights, offsets):
            return torch.autograd.grad(self.loss(model, batch), weights)

    def penalty(self, model: Classifier, batch: Batch, moved: Tensor, *, domains: int) -> Tensor:
        """Lines 6 to 8: one forward pass over both halves, then the inconsistency of the classifier's gradients."""
        n = len(batch)
        features, logits = features_and_logits(model, torch.cat([batch.images, moved]))
        bias = find_head(model.network, model.classes)[1].bias is not None
        original = ClassifierGradients.of(logits[:n], batch.labels, features[:n], bias=bias)
        perturbed = ClassifierGradients.of(logits[n:], batch.labels, features[n:], bias=bias)
        if not self.params.per_domain:
            return inconsistency(original, perturbed, torch.full((n,), 1.0 / n, device=features.device))
        blocks = domain_weights(batch.domains, domains)
        return torch.stack([inconsistency(original, perturbed, block) for block in blocks]).sum()

    def _consider(self, run: TrainingRun) -> None:
        """Keep the current weights and optimiser state if no earlier warm-up epoch did better on validation data."""
        assert run.optimizer is not None
        with run.selecting():
            accuracy = clean_accuracy(run.model, run.validation)
        if accuracy >= self._best_accuracy:
            self._best_accuracy = accuracy
            state = {f"model/{name}": value for name, value in run.model.state_dict().items()}
            state |= {f"optimizer/{name}": value for name, value in optimizer_tensors(run.optimizer).items()}
            self._best = {name: value.detach().clone() for name, value in state.items()}

    def _reload(self, run: TrainingRun) -> None:
        assert run.optimizer is not None
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for place, value in self._best.items():
            part, _, name = place.partition("/")
            parts[part][name] = value
        run.model.load_state_dict(parts["model"])
        load_optimizer_tensors(run.optimizer, parts["optimizer"])
        run.diagnostics["warmup_validation_accuracy"] = self._best_accuracy
        run.selected_on = "validation"
        self._best = {}

    def state(self) -> dict[str, Tensor]:
        """The best warm-up epoch."""
        return {**self._best, "accuracy": torch.tensor(self._best_accuracy, dtype=torch.float64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self._best = {name: value for name, value in state.items() if name != "accuracy"}
        self._best_accuracy = float(state["accuracy"])

    def finish(self, run: TrainingRun) -> None:
        """Put in-place activations back."""
        while self._in_place:
            self._in_place.pop().inplace = True

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """Two of each per warm-up step; then four forward passes, and five backward passes."""
        rest = 1.0 - params.warmup
        return 2.0 * params.warmup + 4.0 * rest, 2.0 * params.warmup + 5.0 * rest


def unknown_domain(
    model: Classifier, batch: Batch, weights: Sequence[Tensor], params: Params
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Lines 1 to 4: images moved up the gradient of loss plus sharpness.

    Args:
        model: in training mode; its running statistics see this pass.
        batch: clean images (B, C, H, W) and labels (B,).
        weights: all trained parameters.
        params: `rho`, `eta`, `norm`.

    Returns:
        The moved images (B, C, H, W) in pixel units, not clipped, the gradient of the loss by the weights, and the
        loss, all without graph.

    Raises:
        UsageError: an operation of the network has no second derivative in torch.
    """
    images = batch.images.detach().clone().requires_grad_(True)
    loss = cross_entropy(model(images), batch.labels)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    squared = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    # The root has no derivative at 0, which a saturated loss reaches; below the floor the term is constant instead.
    sharpness = squared.clamp_min(1e-24).sqrt()
    by_pixel = _second_derivative(loss + params.rho * sharpness, images)
    # One normalised unit is `std` pixel units, so gradients by normalised inputs are `std` times those by pixels.
    offset = displacement(by_pixel * model.std, norm=params.norm, eta=params.eta) * model.std
    return batch.images + offset, tuple(gradient.detach() for gradient in gradients), loss.detach()


def _second_derivative(objective: Tensor, images: Tensor) -> Tensor:
    try:
        return torch.autograd.grad(objective, images)[0]
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise UsageError(
            f"udim differentiates the network twice, which one of its operations does not allow ({error}); "
            f"choose an architecture without it, such as a ResNet"
        ) from error


def displacement(ascent: Tensor, *, norm: Literal["sample", "batch"], eta: float) -> Tensor:
    """Scale an input gradient (B, C, H, W) as `Params.norm` and `Params.eta` say."""
    if norm == "batch":
        return eta * nn.functional.normalize(ascent, p=2, dim=0)
    flat = nn.functional.normalize(ascent.flatten(1), p=2, dim=1)
    scale: float = eta * flat.shape[1] ** 0.5
    return scale * flat.view_as(ascent)
