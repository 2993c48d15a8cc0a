"""Which domains the trainings of leave-one-domain-out selection leave out, train on and watch.

A scored training of the domains D needs one training without V for each V in D. Where the suite already holds a domain
T out of D, that training is without T and V and watches both, so that it also serves the scored training without V:
a table over E domains needs E (E - 1) / 2 of them, as in DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
"""

from __future__ import annotations

from functools import cached_property

from robusteval.planning import targets
from robusteval.planning.loader import LoadedSuite
from robusteval.planning.ood import OpenedData
from robusteval.schema.cells import DataSlice
from robusteval.schema.types import Component, JsonValue


class InnerFolds:
    """The trainings that select for one fold.

    Args:
        whole: the suite, before it was taken apart into folds.
        trained: domains that the scored training of this fold sees.
    """

    def __init__(self, whole: LoadedSuite, trained: tuple[str, ...]) -> None:
        self._whole = whole
        self._trained = trained

    def left_out(self, domain: str) -> tuple[str, ...]:
        """What the training that judges by `domain` does without, in the suite's order."""
        rest = [name for name in self._trained if name != domain]
        return tuple(name for name in self._whole.spec.train.domains if name not in rest)

    def training_data(self, left_out: tuple[str, ...]) -> DataSlice:
        """Training images of all other domains."""
        return self._train(tuple(name for name in self._whole.spec.train.domains if name not in left_out))

    def watched(self, left_out: tuple[str, ...]) -> tuple[DataSlice, ...]:
        """Training images of each domain that is left out; nothing that any column of the table is measured on."""
        return tuple(self._train((name,)) for name in left_out)

    def _train(self, domains: tuple[str, ...]) -> DataSlice:
        return targets.make_slice(self._data.component, self._data.dataset, domains, "train", None)

    @cached_property
    def _data(self) -> OpenedData:
        """The dataset with every domain split as a training domain is."""
        train = self._whole.spec.train
        if train.folds is None:
            return OpenedData(train.data, self._whole.dataset)
        params: dict[str, JsonValue] = dict(train.data.params)
        fields = targets.params_of(targets.registry("dataset").load(train.data.name)).model_fields
        if "sources" in fields:
            params["sources"] = list(train.domains)
        component = Component(name=train.data.name, params=params)
        return OpenedData(component, targets.open_dataset(component))
