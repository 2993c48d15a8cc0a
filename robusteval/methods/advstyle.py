"""AdvStyle, adversarial style augmentation (Y. Zhang et al., arXiv 2301.12643, 2023).

A layer behind chosen modules of a CNN perturbs per-channel feature statistics during training, with noise whose scale
is learned to raise the task loss. Nothing remains of the layers in the trained model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle

from robusteval.data.batches import Batch
from robusteval.methods.base import Method, MethodParams, TrainingRun
from robusteval.methods.style_layer import StyleLayer, Variant
from robusteval.models.classifier import Classifier
from robusteval.schema.digest import stable_int
from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.types import NonNegativeFloat, PositiveFloat

ASCENT_STEPS = 3
"""Steps on the scales alone before each step on the network, with `ascent: separate`."""


class Params(MethodParams):
    """Hyper-parameters of AdvStyle."""

    lr: PositiveFloat = 0.02
    """Peak learning rate; the scales learn `adv_weight` times as fast. ImageNet models: 0.001 (paper)."""
    after: tuple[str, ...] = ()
    """Modules (`robusteval describe` names them) behind which a layer is put; by default the first convolution, a
    `maxpool` after it and every stage, as in the paper's main configuration."""
    variant: Variant = "a"
    """`a` as published; `b` uses only the direction of the learned scales; `dsu` (Li et al., 2022) learns nothing."""
    adv_weight: NonNegativeFloat = 10.0
    """Learning rate of the scales relative to the network's."""
    mix_weight: NonNegativeFloat = 1.0
    """Length of variant `b`'s scales, in units of the batch's own."""
    ascent: Literal["joint", "separate"] = "joint"
    """`joint`: one optimiser updates network and scales; `separate`: three steps on the scales, then one on the
    network."""
    faithful: bool = False
    """Decay the learned scales like weights, as the release does."""


class AdvStyle(Method[Params]):
    """Minimise the cross-entropy under feature statistics that are perturbed adversarially.

    Cost: as ERM; four times that with `ascent: separate`.
    """

    Params = Params
    precisions = frozenset({"float32", "bfloat16"})

    layers: dict[str, StyleLayer]
    _hooks: list[RemovableHandle]

    def prepare(self, run: TrainingRun) -> None:
        """Put a layer behind every chosen module.

        Raises:
            UsageError: a module does not exist, runs more than once per pass, or has no feature maps.
        """
        self.layers, self._hooks = {}, []
        shapes = feature_maps(run.model)
        network = run.model.network
        for name in self.params.after or default_positions(network, shapes):
            layer = StyleLayer(
                check_position(network, name, shapes)[1],
                variant=self.params.variant,
                adv_weight=self.params.adv_weight,
                mix_weight=self.params.mix_weight,
                device=run.model.device,
            )
            self.layers[name] = layer
            self._hooks.append(network.get_submodule(name).register_forward_hook(_restyle(layer)))

    def parameters(self, run: TrainingRun) -> Iterable[Any]:
        """Parameter groups: the network, and with `ascent: joint` the learned scales."""
        groups: list[dict[str, Any]] = [{"params": [p for p in run.model.parameters() if p.requires_grad]}]
        if self.params.ascent == "joint" and self.params.variant != "dsu":
            decay = self.params.weight_decay if self.params.faithful else 0.0
            groups.append({"params": self.scales, "weight_decay": decay})
        return groups

    @property
    def scales(self) -> list[Tensor]:
        """Every layer's learned scales."""
        return [scale for layer in self.layers.values() for scale in layer.scales]

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Cross-entropy with the layers active."""
        return cross_entropy(self.logits(model, batch.images), batch.labels)

    def step(self, run: TrainingRun, batch: Batch) -> Tensor:
        """One step; all noise depends on (seed, iteration, layer) alone."""
        learns_scales = self.params.variant != "dsu" and self.params.ascent == "separate"
        for turn in range(ASCENT_STEPS if learns_scales else 0):
            self._reseed(run, turn)
            self._ascend(run, batch)
        self._reseed(run, ASCENT_STEPS)
        return super().step(run, batch)

    def _reseed(self, run: TrainingRun, turn: int) -> None:
        for name, layer in self.layers.items():
            layer.noise.manual_seed(stable_int("style", run.seed, run.iteration, turn, name))

    def _ascend(self, run: TrainingRun, batch: Batch) -> None:
        """Plain gradient step on the scales; the reversal inside the layers makes it an ascent."""
        assert run.optimizer is not None
        rate = run.optimizer.param_groups[0]["lr"]
        loss = self.loss(run.model, batch)
        gradients = torch.autograd.grad(loss, self.scales, allow_unused=True)
        with torch.no_grad():
            for scale, gradient in zip(self.scales, gradients, strict=True):
                if gradient is not None:
                    scale.sub_(gradient, alpha=rate)

    def state(self) -> dict[str, Tensor]:
        """Learned scales and whether they have been set."""
        return {
            f"{name}/{key}": value.detach()
            for name, layer in self.layers.items()
            for key, value in layer.named_buffers()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy in place: the optimiser holds these tensors."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                for key, value in layer.named_buffers():
                    value.copy_(state[f"{name}/{key}"])

    def finish(self, run: TrainingRun) -> None:
        """Take the layers out; report the mean size of the learned scales."""
        while self._hooks:
            self._hooks.pop().remove()
        run.diagnostics["style_scales"] = {
            name: dict(
                zip(("mean", "std"), (float(scale.detach().abs().mean()) for scale in layer.scales), strict=True)
            )
            for name, layer in self.layers.items()
        }

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """One pass, or four with separate ascent steps."""
        n = 1.0 + (ASCENT_STEPS if params.ascent == "separate" and params.variant != "dsu" else 0)
        return n, n


def _restyle(layer: StyleLayer) -> Any:
    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        layer.train(module.training)
        styled: Tensor = layer(output)
        return styled

    return hook


@torch.no_grad()
def feature_maps(model: Classifier) -> dict[str, list[tuple[int, ...]]]:
    """Output shapes of every call of every named submodule of the network in one pass over two blank images."""
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            shapes.setdefault(name, []).append(tuple(output.shape) if isinstance(output, Tensor) else ())

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.network.named_modules() if name]
    try:
        with model.mode(training=False):
            model.network(torch.zeros(2, *model.input_shape, device=model.device))
    finally:
        for handle in hooks:
            handle.remove()
    return shapes


def check_position(network: nn.Module, name: str, shapes: dict[str, list[tuple[int, ...]]]) -> tuple[int, ...]:
    """Shape (B, C, H, W) of the maps behind a module.

    Raises:
        UsageError: the module does not exist, runs more than once per pass, or its output has no channel statistics.
    """
    known = [module for module, _ in network.named_modules() if module]
    if name not in known:
        raise UsageError(f"advstyle: params.after: {unknown_name('module', name, known)}")
    calls = shapes.get(name, [])
    if len(calls) != 1:
        raise UsageError(
            f"advstyle: params.after: module {name!r} runs {len(calls)} times per pass; choose one that runs once"
        )
    if not has_statistics(calls[0]):
        valid = [other for other in known if len(shapes.get(other, [])) == 1 and has_statistics(shapes[other][0])]
        raise UsageError(
            f"advstyle: params.after: module {name!r} gives {calls[0]}, not maps (B, C, H, W) of 2 or more pixels; "
            f"valid: {', '.join(valid[:12])}"
        )
    return calls[0]


def has_statistics(shape: tuple[int, ...]) -> bool:
    """Whether an output is a batch of feature maps whose channels have a variance."""
    return len(shape) == 4 and shape[2] * shape[3] > 1


def default_positions(network: nn.Module, shapes: dict[str, list[tuple[int, ...]]]) -> tuple[str, ...]:
    """The first convolution, a `maxpool` behind it, and every stage.

    A stage is a child of the network that holds a convolution; while a single child holds all of them (a wrapper such
    as `features`), its own children count instead.

    Raises:
        UsageError: the network has no module with feature maps.
    """
    first = next((name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), None)
    prefix, stages = "", _stages(network)
    while len(stages) == 1 and _stages(stages[0][1]):
        prefix += stages[0][0] + "."
        stages = _stages(stages[0][1])
    names = [first] if first else []
    names += ["maxpool"] if "maxpool" in shapes else []
    names += [prefix + name for name, _ in stages if first != prefix + name]
    chosen = tuple(name for name in names if len(shapes.get(name, [])) == 1 and has_statistics(shapes[name][0]))
    if not chosen:
        raise UsageError("advstyle needs a network with convolutional feature maps; name modules under params.after")
    return chosen


def _stages(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (name, child)
        for name, child in module.named_children()
        if any(isinstance(inner, nn.Conv2d) for inner in child.modules())
    ]
