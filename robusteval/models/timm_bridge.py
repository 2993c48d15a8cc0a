"""Every timm model as an architecture: `timm/resnet18`, `timm/vit_tiny_patch16_224`, with or without a tag."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from robusteval.models.architectures import Architecture
from robusteval.models.bridges import import_timm
from robusteval.schema.errors import UnknownNameError, UsageError, unknown_name
from robusteval.schema.types import Frozen


class TimmParams(Frozen):
    """Hyper-parameters of a timm model."""

    pretrained: bool = False
    """Start from timm's weights, with a fresh last layer if the number of classes differs; needs the network or a
    filled Hugging Face cache. The images are normalised with the dataset's mean and std, not with timm's."""


class TimmArchitecture(Architecture[TimmParams]):
    """A network that timm builds for the given classes, channels and, where the model takes it, image size."""

    Params = TimmParams
    model_name: ClassVar[str]
    """timm's own name, such as `resnet18` or `resnet18.a1_in1k`."""

    def build(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """See the class.

        Raises:
            UsageError: timm cannot build the model for this input, or its weights cannot be had.
        """
        return self._create(classes, input_shape, pretrained=self.params.pretrained)

    def skeleton(self, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        """The network without pretrained weights."""
        return self._create(classes, input_shape, pretrained=False)

    def _create(self, classes: int, input_shape: tuple[int, int, int], *, pretrained: bool) -> nn.Module:
        timm = import_timm()
        channels, height, width = input_shape
        options: dict[str, Any] = {"num_classes": classes, "in_chans": channels, "pretrained": pretrained}
        on_hub = self.model_name.startswith("hf-hub:")
        config = None if on_hub else timm.models.get_pretrained_cfg(self.model_name)
        if config is not None and config.fixed_input_size:
            options["img_size"] = (height, width)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network: nn.Module = timm.create_model(self.model_name, **options)
                # Many networks can be built for images that they cannot take; training would notice late.
                with torch.no_grad():
                    network.eval()(torch.zeros(1, *input_shape))
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "; is the network reachable, and does the model have weights?" if pretrained else ""
            raise UsageError(
                f"timm cannot build {self.model_name!r} for {channels} x {height} x {width} images"
                f"{' with pretrained weights' if pretrained else ''}: {reason}{hint}"
            ) from error
        return network.train()


@dataclass(frozen=True)
class TimmFacts:
    """What timm knows about a set of weights.

    Attributes:
        architecture: timm's name of the network, without a tag.
        mean: per-channel mean that the weights expect, on the [0, 1] scale.
        std: per-channel standard deviation.
        licence: terms of use, empty if timm does not say.
        source: where they come from.
    """

    architecture: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    licence: str
    source: str


def timm_weights(
    name: str, classes: int, input_shape: tuple[int, int, int], *, seed: int
) -> tuple[nn.Module, TimmFacts]:
    """A network with pretrained weights, its head fresh if it was trained on another number of classes.

    Args:
        name: timm's name with or without a tag, or `hf-hub:OWNER/NAME`.
        classes: number of logits.
        input_shape: (C, H, W).
        seed: seed of a fresh head.

    Raises:
        UnknownNameError: timm has no such model or tag.
        UsageError: the weights cannot be had.
    """
    kind = _named(name) if name.startswith("hf-hub:") else timm_architecture(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = kind(TimmParams(pretrained=True)).build(classes, input_shape)
    config: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    grey = len(config.get("mean") or ()) != input_shape[0]
    facts = TimmFacts(
        architecture=str(config.get("architecture") or name.partition(".")[0]),
        mean=None if grey else tuple(config["mean"]),
        std=None if grey else tuple(config["std"]),
        licence=str(config.get("license") or ""),
        source=str(config.get("hf_hub_id") or config.get("url") or name),
    )
    return network, facts


def _named(name: str) -> type[TimmArchitecture]:
    class Named(TimmArchitecture):
        model_name = name

    Named.__name__ = Named.__qualname__ = f"timm/{name}"
    Named.__doc__ = f"The timm model `{name}`."
    return Named


def timm_models() -> list[str]:
    """Every name that timm can build, without its tags of weights."""
    names: list[str] = import_timm().list_models()
    return names


def timm_architecture(name: str) -> type[TimmArchitecture]:
    """The architecture of a timm model.

    Args:
        name: timm's name, with or without a tag.

    Raises:
        UnknownNameError: timm has no such model or tag; the message lists near matches.
    """
    timm = import_timm()
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        raise UnknownNameError(unknown_name("timm model", model, timm.list_models(), listing="timm.list_models()"))
    if tag and name not in timm.list_pretrained(f"{model}.*"):
        raise UnknownNameError(unknown_name("timm weights", name, timm.list_pretrained(f"{model}.*")))
    return _named(name)
