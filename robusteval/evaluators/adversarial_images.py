"""Saving the image that broke each example, while the attacks run and without holding them all.

Images are written in parts of a bounded size, each before the journal says that its example is done, so that a killed
run has the image of everything it will not attack again. What an attack found is verified already; with `uint8` it is
rounded to the grid of 255 levels that every image file can hold, and kept so only if the rounded image lies in the ball
and fools the original model in float32 as well. Where it does not, the float32 image is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.attacks.base import judged, original_logits
from robusteval.attacks.geometry import perturbation_norm
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.image_parts import About, SavedImage, decode_part, encode_part
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Norm, ThreatModel
from robusteval.store.columns import read_metadata
from robusteval.store.scratch import Scratch

Keep = Literal["none", "float", "uint8"]
"""Which form of adversarial images is saved: none, float32 as found, or uint8 where that fools the model too."""

PART_BYTES = 8 * 2**20
"""Images of one part take at least this much memory once it is closed, and one image more at most."""
ROUNDING = 6.0e-8
"""Largest rounding of a float32 pixel in [0, 1] when it is clipped into the ball, as in `project_into`."""
_LEVEL = 1e-4
"""Share of a level by which a float32 pixel may miss the level it stands for."""


def tolerance(threat: ThreatModel, pixels: int) -> float:
    """How far beyond the radius an image of so many pixels and channels may lie by rounding alone."""
    if threat.norm is Norm.LINF:
        return 1e-7
    return 1e-6 * float(threat.epsilon) + ROUNDING * (pixels if threat.norm is Norm.L1 else math.sqrt(pixels))


def distance(images: Tensor, clean: Tensor, norm: Norm) -> Tensor:
    """Size (B,) of each perturbation, in float64 so that the bound is judged and not the arithmetic."""
    if norm is Norm.LINF:
        return (images.double() - clean.double()).flatten(1).abs().amax(dim=1)
    return perturbation_norm(images.double() - clean.double(), norm).double()


def as_pixels(levels: Tensor) -> Tensor:
    """Float32 images in [0, 1] of uint8 levels, by the division that every data set is read with."""
    return levels.to(torch.float32) / torch.tensor(255.0, device=levels.device)


@torch.no_grad()
def rounded(
    model: Classifier, adversarial: Tensor, clean: Tensor, labels: Tensor, threat: ThreatModel
) -> tuple[Tensor, Tensor]:
    """Bring adversarial images to the grid of 255 levels where they stay in the ball and still fool the model.

    The nearest levels are tried first, then those between the image and the clean one. At most two passes an image.

    Args:
        model: the original classifier.
        adversarial: (B, C, H, W) float32 in [0, 1].
        clean: (B, C, H, W) clean images on the grid.
        labels: (B,) true labels.
        threat: a ball.

    Returns:
        Levels (B, C, H, W) uint8 and whether they may stand for the image (B,) bool.
    """
    base = (255.0 * clean.double()).round()
    target = 255.0 * adversarial.double()
    inwards = base + ((target - base).abs() + _LEVEL).floor() * (target - base).sign()
    nearest = target.round()
    if threat.norm is Norm.LINF:
        radius = math.floor(255.0 * float(threat.epsilon) + 1e-6)
        nearest = nearest.clamp(base - radius, base + radius)
    levels = torch.zeros_like(adversarial, dtype=torch.uint8)
    accepted = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    bound = float(threat.epsilon) + tolerance(threat, adversarial[0].numel())
    for candidate in (nearest, inwards):
        rest = (~accepted).nonzero().flatten()
        proposed = candidate[rest].clamp(0, 255).to(torch.uint8)
        inside = distance(as_pixels(proposed), clean[rest], threat.norm) <= bound
        rest, proposed = rest[inside], proposed[inside]
        if len(rest):
            _, wrong = judged(original_logits(model, as_pixels(proposed)), labels[rest])
            levels[rest[wrong]], accepted[rest[wrong]] = proposed[wrong], True
    return levels, accepted


class KeptImages:
    """The images of one evaluation, in parts in scratch space beside the journal.

    One image an example is kept, that of the first attack that broke it.

    Args:
        scratch: where to keep them; parts of another question are removed.
        about: what the images are about.
        form: `float` or `uint8`.
        threat: the ball they must lie in.
        order: (N,) position in the caller's order of the example at each position.
    """

    def __init__(
        self, scratch: Scratch, about: About, form: Keep, threat: ThreatModel, order: NDArray[np.integer[Any]]
    ) -> None:
        self._scratch, self._about, self._form, self._threat, self._order = scratch, about, form, threat, order
        self._stages = {label: index for index, label in enumerate(about.stages)}
        self._where: dict[int, tuple[int, int]] = {}
        self._open: dict[int, SavedImage] = {}
        self._number = 0
        for number, blob in enumerate(saved_parts(scratch)):
            if read_metadata(blob).get("question") != about.question:
                scratch.drop(_name(number))
                continue
            self._open, self._number = self._decoded(blob), number
            self._where |= {example: (number, saved.stage) for example, saved in self._open.items()}
        if self._full():
            self._open, self._number = {}, self._number + 1

    def add(
        self, model: Classifier, label: str, positions: Sequence[int], images: tuple[Tensor, Tensor, Tensor]
    ) -> dict[int, bool]:
        """Save what an attack found, and return once it is on disk.

        Args:
            model: the original classifier, for the rounded images.
            label: the attack.
            positions: positions of the B examples.
            images: adversarial and clean images (B, C, H, W) in [0, 1], and labels (B,).

        Returns:
            Position of each example whose image was saved, to whether it was rounded to uint8.
        """
        stage = self._stages[label]
        adversarial, clean, labels = images
        forms: list[NDArray[Any]] = list(adversarial.cpu().numpy())
        if self._form == "uint8":
            # A model that draws at random must not see other numbers because its images are saved.
            devices = [adversarial.device] if adversarial.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                levels, accepted = rounded(model, adversarial, clean, labels, self._threat)
            for index in accepted.nonzero().flatten().tolist():
                forms[index] = levels[index].cpu().numpy()
        found = {}
        for position, image in zip(positions, forms, strict=True):
            if self._put(int(self._order[position]), SavedImage(stage, image.copy())):
                found[position] = image.dtype == np.uint8
        self._save()
        return found

    def adopt(self, images: Mapping[int, SavedImage]) -> None:
        """Take over images that were verified and rounded elsewhere, by the position of their example."""
        for example, saved in sorted(images.items()):
            self._put(example, saved)
        self._save()

    def _put(self, example: int, saved: SavedImage) -> bool:
        """Save an image, unless an earlier attack has broken the example; returns whether it was saved."""
        number, stage = self._where.get(example, (self._number, saved.stage))
        if stage < saved.stage:
            return False
        if number != self._number:
            # Attacked again, because a kill came between the image and the journal.
            name = _name(number)
            closed = self._decoded(self._scratch.get(name) or b"")
            closed.pop(example, None)
            self._scratch.put(name, encode_part(closed, self._about))
        self._open[example] = saved
        self._where[example] = (self._number, saved.stage)
        if self._full():
            self._save()
            self._open, self._number = {}, self._number + 1
        return True

    @property
    def files(self) -> int:
        """Number of parts in scratch space."""
        return self._number + (1 if self._open else 0)

    def _full(self) -> bool:
        return sum(saved.image.nbytes for saved in self._open.values()) >= PART_BYTES

    def _save(self) -> None:
        if self._open:
            self._scratch.put(_name(self._number), encode_part(self._open, self._about))

    def _decoded(self, blob: bytes) -> dict[int, SavedImage]:
        about = self._about
        return decode_part(blob, ids_digest=about.ids_digest, stages=about.stages, n=about.n, shape=about.shape)


def kept_images(
    keep: Keep, context: EvaluationContext, about: About, order: NDArray[np.integer[Any]]
) -> KeptImages | None:
    """Where the images of an evaluation go; None if none are wanted.

    Raises:
        UsageError: they are wanted, and there is no place for them or no ball to verify them in.
    """
    if keep == "none":
        return None
    if context.scratch is None:
        raise UsageError(f"keep: {keep} needs scratch space to save images in; evaluate through a store, or keep: none")
    if not isinstance(context.threat, ThreatModel):
        raise UsageError(
            f"keep: {keep} is for the balls linf, l2 and l1; whether an image lies in {context.threat} cannot be "
            f"verified from the image, so write keep: none"
        )
    return KeptImages(context.scratch, about, keep, context.threat, order)


def saved_parts(scratch: Scratch) -> Iterator[bytes]:
    """The parts in scratch space, one after the other.

    Raises:
        CorruptRecordError: one of them is damaged.
    """
    number = 0
    while (blob := scratch.get(_name(number))) is not None:
        yield blob
        number += 1


def _name(number: int) -> str:
    return f"images-{number:05d}.safetensors"
