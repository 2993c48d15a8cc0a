"""Classifiers with normalisation inside, architectures, checkpoints, and bridges to model zoos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from robusteval.models.architectures import Architecture

ARCHITECTURES: Registry[type[Architecture[Any]]] = Registry(
    "architecture",
    {
        "small-cnn": (
            "robusteval.models.small:SmallCnn",
            "three convolutions with batch norm; seconds on a CPU",
        ),
        "resnet20": (
            "robusteval.models.resnet:ResNet20",
            "CIFAR ResNet-20 (He et al., CVPR 2016, section 4.2)",
        ),
        "resnet32": (
            "robusteval.models.resnet:ResNet32",
            "CIFAR ResNet-32 (He et al., CVPR 2016, section 4.2)",
        ),
        "resnet44": (
            "robusteval.models.resnet:ResNet44",
            "CIFAR ResNet-44 (He et al., CVPR 2016, section 4.2)",
        ),
        "resnet56": (
            "robusteval.models.resnet:ResNet56",
            "CIFAR ResNet-56 (He et al., CVPR 2016, section 4.2)",
        ),
        "preact-resnet18": (
            "robusteval.models.preact:PreActResNet18",
            "pre-activation ResNet-18 for 32 px (He et al., ECCV 2016)",
        ),
        "wide-resnet": (
            "robusteval.models.preact:WideResNet",
            "WideResNet of given depth and width (Zagoruyko and Komodakis, BMVC 2016)",
        ),
    },
    families={"timm/": ("robusteval.models.timm_bridge:timm_architecture", "every timm model, as timm/resnet18")},
)
