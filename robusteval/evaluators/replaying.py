"""Verifying saved adversarial images again: one forward pass each, and nothing in the files is believed.

An image is verified if it is finite, lies in the pixel box [0, 1] exactly and in the ball up to rounding, belongs to an
example that the record counts as broken by the attack named with it, and is still misclassified by the model in
float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np
import torch
from torch import Tensor

from robusteval.attacks.base import judged, original_logits
from robusteval.data.batches import DeviceSet
from robusteval.data.imageset import ImageSet
from robusteval.evaluators.adversarial_images import as_pixels, distance, tolerance
from robusteval.evaluators.adversarial_report import ATTACKED
from robusteval.evaluators.image_parts import SavedImage, decode_part
from robusteval.evaluators.views import Views
from robusteval.models.classifier import Classifier
from robusteval.schema.records import Evaluation
from robusteval.schema.replays import Replay, ReplayFailure
from robusteval.schema.types import ThreatModel

BATCH = 128
"""Images verified in one pass."""


class Replayer:
    """Verifies the images of one evaluation part by part.

    Args:
        model: the model of the record, in evaluation mode on its device.
        data: the examples of the record, in its order.
        threat: the ball.
        evaluation: what the record says.
    """

    def __init__(self, model: Classifier, data: ImageSet, threat: ThreatModel, evaluation: Evaluation) -> None:
        self._model, self._views, self._data, self._threat = model, Views(model, data), data, threat
        self._examples = DeviceSet(self._views.data, model.device)
        outcomes = {name: bits.unpack() for name, bits in evaluation.outcomes.items()}
        self._clean, robust = outcomes["clean"], outcomes["robust"]
        self._stages = tuple(
            name for name in outcomes if name not in ("clean", "robust") and not name.startswith(ATTACKED)
        )
        self._after = {name: outcomes[name] for name in self._stages}
        self._broken = {i for i, (right, stands) in enumerate(zip(self._clean, robust, strict=True)) if right > stands}
        self._seen: dict[int, str] = {}
        self._rounded = 0
        self._bound = float(threat.epsilon) + tolerance(threat, int(np.prod(data.images.shape[1:])))

    def part(self, blob: bytes) -> None:
        """Verify the images of one file.

        Raises:
            CorruptRecordError: it is no file of images, or about other examples.
        """
        images = decode_part(
            blob,
            ids_digest=self._data.ids_digest,
            stages=self._stages,
            n=len(self._data),
            shape=self._data.images.shape[1:],
        )
        with self._model.frozen():
            for dtype, view in product((np.uint8, np.float32), range(len(self._views.models))):
                chosen = {
                    example: saved
                    for example, saved in images.items()
                    if saved.image.dtype == dtype and self._views.of[example] == view
                }
                examples = list(chosen)
                for start in range(0, len(examples), BATCH):
                    self._batch(
                        self._views.models[view],
                        {example: chosen[example] for example in examples[start : start + BATCH]},
                    )

    def _batch(self, model: Classifier, images: Mapping[int, SavedImage]) -> None:
        device = self._examples.device
        stacked = torch.from_numpy(np.stack([saved.image for saved in images.values()])).to(device)
        self._rounded += len(images) if stacked.dtype == torch.uint8 else 0
        pixels = as_pixels(stacked) if stacked.dtype == torch.uint8 else stacked
        batch = self._examples.batch(torch.tensor(list(images), dtype=torch.int64, device=device))
        finite = pixels.isfinite().flatten(1).all(dim=1)
        # What is not a number cannot be measured, and the others in its pass must not see it.
        shown = torch.where(finite.view(-1, 1, 1, 1), pixels, batch.images)
        boxed = ((shown >= 0) & (shown <= 1)).flatten(1).all(dim=1)
        size = distance(shown, batch.images, self._threat.norm)
        margin, wrong = judged(original_logits(model, shown), batch.labels)
        facts = zip(images.items(), _columns(finite, boxed, size, margin, wrong), strict=True)
        for (example, saved), (is_finite, is_boxed, far, by, is_wrong) in facts:
            problems = [*self._of_record(example, saved)]
            problems += [] if is_finite else ["a pixel is NaN or infinite"]
            problems += [] if is_boxed else ["a pixel lies outside [0, 1]"]
            problems += (
                [] if far <= self._bound else [f"it lies {far:.8g} from the clean image, outside {self._threat}"]
            )
            problems += [] if is_wrong else [f"the model classifies it rightly, by a margin of {by:.3g}"]
            self._seen[example] = "; ".join(problems)

    def _of_record(self, example: int, saved: SavedImage) -> Iterable[str]:
        if example in self._seen:
            yield "a second image of this example"
        if example not in self._broken:
            yield "the record does not count this example as broken by an attack"
        elif self._after[self._stages[saved.stage]][example]:
            yield f"the record says that it stands after {self._stages[saved.stage]}"

    def report(self, cell_key: str) -> Replay:
        """What was verified, and what was not."""
        reasons = {**dict.fromkeys(self._broken - self._seen.keys(), "no image of this broken example is saved")}
        reasons |= {example: text for example, text in self._seen.items() if text}
        return Replay(
            cell_key=cell_key,
            saved=len(self._seen),
            rounded=self._rounded,
            verified=sum(not text for text in self._seen.values()),
            failures=tuple(
                ReplayFailure(example=self._data.ids[example], reason=text) for example, text in sorted(reasons.items())
            ),
            threat=str(self._threat),
            tolerance=self._bound - float(self._threat.epsilon),
            device=str(self._examples.device),
        )


def _columns(*tensors: Tensor) -> Iterable[tuple[float, ...]]:
    return zip(*(tensor.tolist() for tensor in tensors), strict=True)
