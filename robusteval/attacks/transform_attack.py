"""The contract of attacks on transformations: the attack proposes parameters, the library renders and judges."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from robusteval.attacks.base import Attack, Found, OnVerdict, Standing, judged, original_logits
from robusteval.attacks.guard import untouched
from robusteval.attacks.symptoms import NAN_LOGITS
from robusteval.attacks.transforms import Transform, transform_of
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import CellError
from robusteval.schema.types import Frozen, Norm

P = TypeVar("P", bound=Frozen)


class TransformAttack(Attack[P]):
    """An attack inside a family of transformed images.

    The reported norm of a result is the largest change of a pixel.
    """

    family: ClassVar[Literal["spatial", "recolour"]]
    """Kind of threat the attack is for."""
    norms = frozenset()

    @classmethod
    def supports(cls) -> tuple[str, ...]:
        """See `Attack.supports`."""
        return (cls.family,)

    @property
    def transform(self) -> Transform:
        """The family of images."""
        return transform_of(self.limits)

    @property
    def measure(self) -> Norm:
        """See `Attack.measure`."""
        return Norm.LINF

    def check_model(self, model: Classifier) -> None:
        """See `Attack.check_model`."""
        self.transform.shape(model.input_shape)

    @abstractmethod
    def propose(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """Parameters (B, *shape) for examples that the model gets right; clipped by the caller and never trusted."""

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        proposed = self.propose(model, images, labels, keys=keys, seed=seed)
        return self._rendered(images, self._checked(proposed, images))

    def _search(self, model: Classifier, examples: Standing, seed: int, on_verdict: OnVerdict | None) -> Found:
        """Let `propose` propose, render what it proposed from the clean images, and judge that."""
        clean = examples.images.clone()
        with untouched(self.name, model):
            proposed = self.propose(model, examples.images, examples.labels, keys=examples.keys, seed=seed)
        rendered = self._rendered(clean, self._checked(proposed, clean))
        margin, broken = judged(original_logits(model, rendered), examples.labels)
        self.observe(NAN_LOGITS, margin.isnan())
        return Found(rendered, broken, margin)

    def _checked(self, proposed: Tensor, clean: Tensor) -> Tensor:
        """Clipped parameters.

        Raises:
            CellError: wrong shape, or NaN.
        """
        wanted = (len(clean), *self.transform.shape(tuple(clean.shape[1:])))
        if not isinstance(proposed, Tensor) or tuple(proposed.shape) != wanted:
            shape = tuple(proposed.shape) if isinstance(proposed, Tensor) else type(proposed).__name__
            raise CellError(f"attack {self.name!r} returned {shape} instead of parameters of shape {wanted}")
        proposed = proposed.detach().to(clean.device)
        if not bool(proposed.isfinite().all()):
            raise CellError(f"attack {self.name!r} returned NaN or infinite parameters")
        return self.transform.clip(proposed)

    @torch.no_grad()
    def _rendered(self, clean: Tensor, parameters: Tensor) -> Tensor:
        return self.transform.render(clean, parameters)
