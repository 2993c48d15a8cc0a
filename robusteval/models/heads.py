"""The last linear layer of a network, and the features it reads."""

from __future__ import annotations

from torch import Tensor, nn

from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError


def find_head(network: nn.Module, classes: int) -> tuple[str, nn.Linear]:
    """Find the layer that turns features into logits.

    timm models name theirs through `get_classifier`; otherwise it is the last `nn.Linear` with `classes` outputs.

    Args:
        network: any network, such as `Classifier.network`.
        classes: number of logits.

    Returns:
        Its dotted name inside `network`, and the layer.

    Raises:
        UsageError: there is no such layer.
    """
    linears = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    named = getattr(network, "get_classifier", None)
    chosen = named() if callable(named) else None
    for name, module in linears:
        if module is chosen:
            return name, module
    fitting = [(name, module) for name, module in linears if module.out_features == classes]
    if not fitting:
        raise UsageError(
            f"{type(network).__name__} has no linear layer with {classes} outputs, "
            f"so it has no head for this method to work on; choose another architecture"
        )
    return fitting[-1]


def features_and_logits(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of one forward pass, both differentiable.

    Args:
        model: the classifier, in the mode it should run in; the pass is counted.
        images: (B, C, H, W) in [0, 1].

    Returns:
        (B, F), what the head reads, and (B, classes).

    Raises:
        UsageError: the network has no linear head, or does not run it once on one vector an image.
    """
    name, head = find_head(model.network, model.classes)
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        logits = model(images)
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0].dim() != 2:
        raise UsageError(
            f"the head {name!r} of {type(model.network).__name__} does not read one feature vector an image "
            f"(it ran {len(seen)} times); choose another architecture for this method"
        )
    # The pass may have been padded: features of the padding are cut off like its logits.
    return seen[0][: images.shape[0]], logits


def features(model: Classifier, images: Tensor) -> Tensor:
    """What the last linear layer reads: (B, F), differentiable; costs one counted forward pass."""
    return features_and_logits(model, images)[0]
