"""A model as it was given: measured and not trained, so that published weights stand in a table beside others."""

from __future__ import annotations

from typing import Any, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor

from robusteval.data.batches import Batch
from robusteval.methods.base import Method, MethodParams
from robusteval.models.classifier import Classifier
from robusteval.schema.errors import UsageError


class Params(MethodParams):
    """Nothing is trained, so none of these may be set."""

    @model_validator(mode="after")
    def _nothing_is_set(self) -> Self:
        changed = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        if changed:
            raise ValueError(f"method 'given' trains nothing and takes no parameters; remove {', '.join(changed)}")
        return self

    @model_serializer(mode="wrap")
    def _empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {}


class Given(Method[Params]):
    """Keep the start model as it is.

    Cost: no pass; neither training nor validation images are read.
    """

    Params = Params
    start = "required"
    trains = False
    selects_itself = True

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """There is none.

        Raises:
            UsageError: always.
        """
        raise UsageError("method 'given' trains nothing, so it has no loss")

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """None."""
        return (0.0, 0.0)
