"""How a suite measures: the examples of both halves of the table, and the attacks inside their threats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robusteval.planning import targets
from robusteval.planning.checking import Checking
from robusteval.planning.ood import open_ood
from robusteval.planning.opening import anchored, opened
from robusteval.schema.source import Loc
from robusteval.schema.specs import OodSpec, SliceSpec, ThreatSpec, TrainSpec
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset


class MeasurementChecks(Checking):
    """Checks `evaluate`, once the training data is known."""

    def slices(self) -> None:
        """Domains and counts of the two halves of the table."""
        train = self.part(TrainSpec, "train")
        trained = set(train.domains) if train else set()
        if train is not None and train.folds is not None:
            self._folded(train)
            return
        self._in_distribution(train, trained)
        spec = self.part(OodSpec, "evaluate", "ood")
        if spec is None:
            return
        loc: Loc = ("evaluate", "ood")
        if spec.data is not None or spec.shifts is not None:
            self._other_data(spec, train)
            dataset = self.findings.ood.dataset if self.findings.ood else None
        else:
            dataset = self.findings.dataset
            for index, name in enumerate(spec.domains or ()):
                if name in trained:
                    text = f"domain {name!r} is trained on, so it is not out of distribution; remove it"
                    self.say((*loc, "domains", index), text)
        self._slice(spec, loc, spec.domains or (), dataset)

    def _folded(self, train: TrainSpec) -> None:
        """With folds the domains of both halves follow from `train.domains`."""
        for half in ("id", "ood"):
            for key in ("domains", "data", "shifts"):
                if self.source.at(("evaluate", half, key)) is not None:
                    text = f"with folds {train.folds!r} both halves follow from train.domains; remove {key!r}"
                    self.say(("evaluate", half, key), text)

    def _in_distribution(self, train: TrainSpec | None, trained: set[str]) -> None:
        loc: Loc = ("evaluate", "id")
        spec = self.part(SliceSpec, *loc)
        if spec is None:
            return
        for index, name in enumerate(spec.domains or ()):
            if train and name not in trained:
                text = f"domain {name!r} is not trained on, so it belongs to 'ood'; valid: {train.domains}"
                self.say((*loc, "domains", index), text)
        self._slice(spec, loc, spec.domains or tuple(trained), self.findings.dataset)

    def _other_data(self, spec: OodSpec, train: TrainSpec | None) -> None:
        """Open what the out-of-distribution half is measured on."""
        dataset = self.findings.dataset
        key: Loc = ("evaluate", "ood", "data" if spec.shifts is None else "shifts")
        if spec.data is not None and not self.component("dataset", spec.data, key):
            return
        if dataset is None or train is None:
            return
        local = spec if spec.data is None else spec.model_copy(update={"data": anchored(spec.data, self.source.path)})
        resolved = train.model_copy(update={"data": self.findings.data})
        half = self.part(SliceSpec, "evaluate", "id")
        domains = (half.domains if half else None) or train.domains
        self.findings.ood = self.attempt(key, lambda: open_ood(local, resolved, domains, dataset, opened))

    def _slice(self, spec: SliceSpec, loc: Loc, domains: tuple[str, ...], dataset: Dataset[Any] | None) -> None:
        self.domains(spec.domains or (), (*loc, "domains"), dataset)
        if spec.domains == ():
            self.say((*loc, "domains"), "no domain is listed; leave the key out for the default")
        self._counts(spec, loc, domains, dataset)

    def _counts(self, spec: SliceSpec, loc: Loc, domains: tuple[str, ...], dataset: Dataset[Any] | None) -> None:
        if spec.examples and spec.robust_examples and spec.robust_examples > spec.examples:
            text = f"robust_examples {spec.robust_examples} is more than examples, {spec.examples}; write at most that"
            self.say((*loc, "robust_examples"), text)
        if dataset is None:
            return
        for key in ("examples", "robust_examples"):
            wanted = getattr(spec, key)
            for name in domains:
                if wanted and name in dataset.domains and wanted > (there := len(dataset.ids(name, "test"))):
                    text = f"{key} is {wanted}, but domain {name!r} has {there} test examples; write at most {there}"
                    self.say((*loc, key), text)
                    break

    def threats(self) -> None:
        """Attacks by name and parameters, inside their threat models; unseen threats are others than the threats."""
        seen: dict[Threat, int] = {}
        for key in ("threats", "unseen_threats"):
            written = self.source.at(("evaluate", key))
            for index in range(len(written) if isinstance(written, list) else 0):
                loc: Loc = ("evaluate", key, index)
                spec = self.part(ThreatSpec, *loc)
                if spec is None:
                    continue
                self._threat(spec, loc)
                if key == "threats":
                    seen[spec.threat] = self.source.line(loc)
                elif spec.threat in seen:
                    where = f"line {seen[spec.threat]}"
                    self.say(loc, f"threat {spec.threat} is on {where} already, so it is not unseen; write another")

    def _threat(self, spec: ThreatSpec, loc: Loc) -> None:
        if spec.threat.only_clean:
            spatial = spec.epsilon is None
            text = "a rotation or translation of 0" if spatial else "epsilon 0"
            hint = "rotation: 30, translation: 0.1" if spatial else "a positive radius such as 8/255"
            self.say((*loc, "norm" if spatial else "epsilon"), f"{text} allows no attack; write {hint}")
            return
        if spec.norm == "linf" and spec.epsilon is not None and spec.epsilon.fraction > 1:
            text = f"epsilon {spec.epsilon} is more than the whole pixel range [0, 1]; {spec.epsilon} grey levels are"
            self.say((*loc, "epsilon"), f"{text} {spec.epsilon}/255")
            return
        for position, attack in enumerate(spec.attacks):
            self._attack(attack, spec.threat, (*loc, "attacks", position))

    def _attack(self, attack: Component, threat: Threat, loc: Loc) -> None:
        if self.component("attack", attack, loc):
            self.attempt(loc, lambda: targets.resolve_attack(attack, threat))
