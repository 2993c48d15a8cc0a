"""Everything about a suite that its types cannot say: names, parameters, data, starts, and what fits what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from robusteval.planning import targets
from robusteval.planning.ood import OpenedData, open_ood
from robusteval.planning.protocols import with_protocol_data
from robusteval.planning.starts import is_pretrained, pretrained_checkpoint, start_path
from robusteval.schema.errors import DataError, RobustevalError, UsageError, unknown_name
from robusteval.schema.problems import explain, reword
from robusteval.schema.source import Loc, Problem, Source, shorten
from robusteval.schema.specs import EvaluateSpec, MethodSpec, OodSpec, ScoreSpec, SliceSpec, ThreatSpec, TrainSpec
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component, Frozen

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset

M = TypeVar("M", bound=BaseModel)

FRESH_HEAD = "fresh head"
"""What the notes of a checkpoint say whose last layer was drawn at random."""
_PATH_PARAMETERS = ("path", "cache")
"""Parameters of datasets that are files or folders."""


@dataclass
class Findings:
    """What checking found besides problems.

    Attributes:
        problems: everything that is wrong.
        dataset: the opened dataset, if it could be opened.
        ood: what the out-of-distribution half is measured on, if that is another dataset.
        weights: start checkpoints by what the suite calls them.
    """

    problems: list[Problem] = field(default_factory=list)
    dataset: Dataset[Any] | None = None
    ood: OpenedData | None = None
    weights: dict[str, Path] = field(default_factory=dict)


def check_suite(source: Source) -> Findings:
    """Check each part of a suite that is well formed by itself, so that one mistake does not hide another."""
    check = _Check(source)
    check.train()
    check.methods()
    check.starts()
    check.slices()
    check.threats()
    check.rest()
    return check.findings


class _Check:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings = Findings()
        self._rows: dict[str, int] = {}
        self._rows_known = True
        self._architecture: Component | None = None

    # -- reading parts ---------------------------------------------------------------------------------------------

    def _part(self, model: type[M], *loc: str | int) -> M | None:
        value = self.source.at(loc)
        if value is None:
            return None
        try:
            return model.model_validate(value)
        except ValidationError:
            return None

    def _say(self, loc: Loc, text: str) -> None:
        self.findings.problems.append(Problem(self.source.line(loc), text))

    def _try(self, loc: Loc, action: Callable[[], Any]) -> Any:
        """Do something that may refuse; the refusal becomes a problem and the result None."""
        try:
            return action()
        except RobustevalError as error:
            self._say(loc, str(error))
        except ValidationError as error:
            self._say(loc, reword(error.errors()[0]["msg"]))
        except OSError as error:
            place = f"{shorten(error.filename)}: " if error.filename else ""
            self._say(loc, f"{place}cannot be read ({error.strerror or error}); give another path")
        return None

    def _component(self, kind: str, component: Component, loc: Loc, name_key: str = "name") -> Any:
        """The registered class if its name and parameters are right, else None."""
        registry = targets.registry(kind)
        target = self._try((*loc, name_key), lambda: registry.load(component.name))
        if target is None:
            return None
        model: type[Frozen] = targets.params_of(target)
        try:
            model.model_validate(component.params)
        except ValidationError as error:
            self.findings.problems += explain(error, model, self.source, (*loc, "params"))
            return None
        return target

    # -- the parts -------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Dataset, domains and architecture."""
        spec = self._part(TrainSpec, "train")
        if spec is None:
            return
        where: Loc = ("train", "architecture")
        if self._component("architecture", spec.architecture, where):
            self._architecture = self._try(where, lambda: targets.resolve_architecture(spec.architecture))
        if self._component("dataset", spec.data, ("train", "data")):
            data = self._data(spec)
            opened = self._try(("train", "data"), lambda: _opened(anchored(data, self.source.path)))
            self.findings.dataset = opened
        self._domains(spec.domains, ("train", "domains"), self.findings.dataset)
        dataset = self.findings.dataset
        if self._architecture is not None and dataset is not None:
            side, smallest = min(dataset.image_shape[1:]), targets.smallest_image(self._architecture)
            if side < smallest:
                text = f"{spec.architecture.name!r} takes images from {smallest} px up, the data has {side} px"
                self._say(where, text + "; choose another architecture or larger images")

    def _data(self, train: TrainSpec) -> Component:
        """The training dataset with what the suite's protocol says of it."""
        name = self.source.at(("protocol",))
        if not isinstance(name, str):
            return train.data
        protocol = self._try(("protocol",), lambda: targets.load_protocol(name))
        return train.data if protocol is None else with_protocol_data(train, protocol)

    def _domains(self, names: tuple[str, ...], loc: Loc, dataset: Dataset[Any] | None) -> None:
        for index, name in enumerate(names):
            where = (*loc, index)
            if name in names[:index]:
                self._say(where, f"domain {name!r} is listed twice; keep one")
            elif dataset is not None and name not in dataset.domains:
                other = self.findings.ood is not None and dataset is self.findings.ood.dataset
                named = self.source.at((*loc[:-1], "data") if other else ("train", "data"))
                listing = f"robusteval describe {shorten(named.get('name') if isinstance(named, dict) else named, 30)}"
                self._say(where, unknown_name("domain", name, dataset.domains, listing=listing.replace("'", "")))

    def methods(self) -> None:
        """Names, parameters and labels of the rows."""
        written = self.source.at(("methods",))
        for index in range(len(written) if isinstance(written, list) else 0):
            loc = ("methods", index)
            spec = self._part(MethodSpec, *loc)
            if spec is None:
                self._rows_known = False
                continue
            if spec.row in self._rows:
                where = self.source.line(("methods", self._rows[spec.row]))
                text = f"row {spec.row!r} is on line {where} already; give one of the two another 'label'"
                self._say((*loc, "label" if spec.label else "method"), text)
                continue
            self._rows[spec.row] = index
            self._method(spec, loc)

    def _method(self, spec: MethodSpec, loc: Loc) -> None:
        found = self._component("method", Component(name=spec.method, params=spec.params), loc, "method")
        if found is None:
            # A row may be called by a name that is still to be corrected; what refers to it is judged then.
            self._rows_known &= spec.label is not None or spec.method in targets.registry("method")
            return
        if found.start == "required" and spec.start is None:
            text = f"method {spec.method!r} needs a 'start': the label of another row, or a .safetensors file"
            self._say((*loc, "method"), text)
        own = spec.architecture
        if own is not None and self._component("architecture", own, (*loc, "architecture")):
            self._try((*loc, "architecture"), lambda: targets.resolve_architecture(own))
        params = targets.params_of(found).model_validate(spec.params)
        for position, component in enumerate(getattr(params, "augment", ())):
            self._component("augmentation", component, (*loc, "params", "augment", position))
        self._try((*loc, "params"), lambda: targets.resolve_method(spec.method, spec.params))

    def starts(self) -> None:
        """Starts exist, fit the data, and lead somewhere."""
        starts: dict[str, str] = {}
        for row, index in self._rows.items():
            spec = self._part(MethodSpec, "methods", index)
            if spec is None or spec.start is None:
                continue
            loc = ("methods", index, "start")
            path = start_path(spec.start, self._rows, self.source.path)
            if spec.start in self._rows:
                starts[row] = spec.start
                self._same_architecture(spec, loc)
                if spec.weights is not None:
                    self._say(
                        (*loc[:-1], "weights"), f"{spec.start!r} is a row, whose weights need no key map; remove it"
                    )
            elif is_pretrained(spec, self._rows, self.source.path):
                self._pretrained(spec, loc)
            elif path is not None:
                self._weights(spec, path, loc)
            elif self._rows_known:
                others = [name for name in self._rows if name != row]
                self._say(loc, unknown_name("start row", spec.start, others) + ", or give a .safetensors file")
        for row in _on_cycles(starts):
            chain = " -> ".join(_chain(row, starts))
            self._say(("methods", self._rows[row], "start"), f"starts in a circle: {chain}; one row must start fresh")

    def _row_architecture(self, spec: MethodSpec) -> Component | None:
        """The network of a row, if it is known; what is wrong with a row's own is said with the row."""
        own = spec.architecture
        if own is None:
            return self._architecture
        try:
            return targets.resolve_architecture(own)
        except (RobustevalError, ValidationError):
            return None

    def _same_architecture(self, spec: MethodSpec, loc: Loc) -> None:
        other = self._part(MethodSpec, "methods", self._rows[str(spec.start)])
        ours, theirs = self._row_architecture(spec), self._row_architecture(other) if other is not None else None
        if ours is not None and theirs is not None and ours != theirs:
            text = f"row {spec.start!r} is a {_spelled(theirs)}, this row a {_spelled(ours)}; make them the same"
            self._say(loc, text)

    def _pretrained(self, spec: MethodSpec, loc: Loc) -> None:
        dataset, architecture = self.findings.dataset, self._row_architecture(spec)
        if dataset is None or architecture is None:
            return
        seeds = self.source.at(("seeds",))
        seed = seeds[0] if isinstance(seeds, list) and seeds and type(seeds[0]) is int and seeds[0] >= 0 else 0
        found = self._try(loc, lambda: pretrained_checkpoint(spec, self.source.path, architecture, dataset, seed))
        if found is None:
            return
        self.findings.weights[str(spec.start)] = found
        methods = targets.registry("method")
        if spec.method in methods and not methods.load(spec.method).trains:
            notes = targets.inspect_checkpoint(found, source=str(spec.start)).notes
            if FRESH_HEAD in notes:
                text = f"{spec.start!r} has other classes than the data, and method {spec.method!r} trains no new head"
                self._say(loc, text + "; fine-tune it, or take weights for these classes")

    def _weights(self, spec: MethodSpec, path: Path, loc: Loc) -> None:
        text = str(spec.start)
        info = self._try(loc, lambda: targets.inspect_checkpoint(path, source=text))
        if info is None:
            return
        self.findings.weights[text] = path
        dataset = self.findings.dataset
        if dataset is not None:
            methods = targets.registry("method")
            any_classes = spec.method in methods and methods.load(spec.method).replaces_head
            self._try(loc, lambda: targets.check_fits(info, dataset, source=text, any_classes=any_classes))
        architecture = self._row_architecture(spec)
        if architecture is not None and architecture != info.architecture:
            ours, theirs = _spelled(architecture), _spelled(info.architecture)
            self._say(loc, f"checkpoint {text!r} is a {theirs}, this suite trains a {ours}; make them the same")

    def slices(self) -> None:
        """Domains and counts of the two halves of the table."""
        train = self._part(TrainSpec, "train")
        trained = set(train.domains) if train else set()
        if train is not None and train.folds is not None:
            self._folded(train)
            return
        self._in_distribution(train, trained)
        spec = self._part(OodSpec, "evaluate", "ood")
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
                    self._say((*loc, "domains", index), text)
        self._slice(spec, loc, spec.domains or (), dataset)

    def _folded(self, train: TrainSpec) -> None:
        """With folds the domains of both halves follow from `train.domains`."""
        for half in ("id", "ood"):
            for key in ("domains", "data", "shifts"):
                if self.source.at(("evaluate", half, key)) is not None:
                    text = f"with folds {train.folds!r} both halves follow from train.domains; remove {key!r}"
                    self._say(("evaluate", half, key), text)

    def _in_distribution(self, train: TrainSpec | None, trained: set[str]) -> None:
        loc: Loc = ("evaluate", "id")
        spec = self._part(SliceSpec, *loc)
        if spec is None:
            return
        for index, name in enumerate(spec.domains or ()):
            if train and name not in trained:
                text = f"domain {name!r} is not trained on, so it belongs to 'ood'; valid: {train.domains}"
                self._say((*loc, "domains", index), text)
        self._slice(spec, loc, spec.domains or tuple(trained), self.findings.dataset)

    def _other_data(self, spec: OodSpec, train: TrainSpec | None) -> None:
        """Open what the out-of-distribution half is measured on."""
        dataset = self.findings.dataset
        key: Loc = ("evaluate", "ood", "data" if spec.shifts is None else "shifts")
        if spec.data is not None and not self._component("dataset", spec.data, key):
            return
        if dataset is None or train is None:
            return
        anchor = self.source.path
        local = spec if spec.data is None else spec.model_copy(update={"data": anchored(spec.data, anchor)})
        resolved = train.model_copy(update={"data": anchored(self._data(train), anchor)})
        half = self._part(SliceSpec, "evaluate", "id")
        domains = (half.domains if half else None) or train.domains
        self.findings.ood = self._try(key, lambda: open_ood(local, resolved, domains, dataset, _opened))

    def _slice(self, spec: SliceSpec, loc: Loc, domains: tuple[str, ...], dataset: Dataset[Any] | None) -> None:
        self._domains(spec.domains or (), (*loc, "domains"), dataset)
        if spec.domains == ():
            self._say((*loc, "domains"), "no domain is listed; leave the key out for the default")
        self._counts(spec, loc, domains, dataset)

    def _counts(self, spec: SliceSpec, loc: Loc, domains: tuple[str, ...], dataset: Dataset[Any] | None) -> None:
        if spec.examples and spec.robust_examples and spec.robust_examples > spec.examples:
            text = f"robust_examples {spec.robust_examples} is more than examples, {spec.examples}; write at most that"
            self._say((*loc, "robust_examples"), text)
        if dataset is None:
            return
        for key in ("examples", "robust_examples"):
            wanted = getattr(spec, key)
            for name in domains:
                if wanted and name in dataset.domains and wanted > (there := len(dataset.ids(name, "test"))):
                    text = f"{key} is {wanted}, but domain {name!r} has {there} test examples; write at most {there}"
                    self._say((*loc, key), text)
                    break

    def threats(self) -> None:
        """Attacks by name and parameters, inside their threat models; unseen threats are others than the threats."""
        seen: dict[Threat, int] = {}
        for key in ("threats", "unseen_threats"):
            written = self.source.at(("evaluate", key))
            for index in range(len(written) if isinstance(written, list) else 0):
                loc: Loc = ("evaluate", key, index)
                spec = self._part(ThreatSpec, *loc)
                if spec is None:
                    continue
                self._threat(spec, loc)
                if key == "threats":
                    seen[spec.threat] = self.source.line(loc)
                elif spec.threat in seen:
                    where = f"line {seen[spec.threat]}"
                    self._say(loc, f"threat {spec.threat} is on {where} already, so it is not unseen; write another")

    def _threat(self, spec: ThreatSpec, loc: Loc) -> None:
        if spec.threat.only_clean:
            spatial = spec.epsilon is None
            text = "a rotation or translation of 0" if spatial else "epsilon 0"
            hint = "rotation: 30, translation: 0.1" if spatial else "a positive radius such as 8/255"
            self._say((*loc, "norm" if spatial else "epsilon"), f"{text} allows no attack; write {hint}")
            return
        if spec.norm == "linf" and spec.epsilon is not None and spec.epsilon.fraction > 1:
            text = f"epsilon {spec.epsilon} is more than the whole pixel range [0, 1]; {spec.epsilon} grey levels are"
            self._say((*loc, "epsilon"), f"{text} {spec.epsilon}/255")
            return
        for position, attack in enumerate(spec.attacks):
            self._attack(attack, spec.threat, (*loc, "attacks", position))

    def _attack(self, attack: Component, threat: Threat, loc: Loc) -> None:
        if self._component("attack", attack, loc):
            self._try(loc, lambda: targets.resolve_attack(attack, threat))

    def rest(self) -> None:
        """Seeds and scoring."""
        seeds = self.source.at(("seeds",))
        for index, seed in enumerate(seeds if isinstance(seeds, list) else ()):
            if seed in seeds[:index]:
                self._say(("seeds", index), f"seed {seed} is listed twice; keep one")
        score = self._part(ScoreSpec, "score")
        if score and score.baseline is not None and self._rows_known and score.baseline not in self._rows:
            self._say(("score", "baseline"), unknown_name("baseline row", score.baseline, self._rows))
        self._part(EvaluateSpec, "evaluate")


def anchored(component: Component, suite: Path) -> Component:
    """The component with every relative path among its parameters taken from the suite's folder.

    Raises:
        UsageError: a path starts with the home folder of a user that does not exist.
    """
    registry = targets.registry("dataset")
    if component.name not in registry:
        return component
    fields = targets.params_of(registry.load(component.name)).model_fields
    params = dict(component.params)
    for name, value in component.params.items():
        if name in _PATH_PARAMETERS and name in fields and isinstance(value, str):
            params[name] = str((suite.parent / _at_home(value)).resolve())
    return component.model_copy(update={"params": params})


def _at_home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{shorten(text)}: there is no such user's home folder; write the path out") from None


def _opened(component: Component) -> Dataset[Any]:
    """Open a dataset and read what checking needs, so that broken data shows here."""
    dataset = targets.open_dataset(component)
    _ = (dataset.image_shape, [dataset.ids(domain, "test") for domain in dataset.domains])
    if len(dataset.classes) < 2:
        raise DataError(
            f"dataset {component.name!r}: a classifier needs at least 2 classes, this one has "
            f"{', '.join(map(repr, dataset.classes)) or 'none'}; a tree is domain/class/file or split/class/file"
        )
    return dataset


def _spelled(component: Component) -> str:
    inner = ", ".join(f"{name} {value}" for name, value in component.params.items())
    return component.name + (f" ({inner})" if inner else "")


def _on_cycles(starts: Mapping[str, str]) -> list[str]:
    return [row for row in starts if _chain(row, starts)[-1] == row]


def _chain(row: str, starts: Mapping[str, str]) -> list[str]:
    """Rows from `row` along its starts, up to the first that has none or was met already."""
    chain = [row]
    while (following := starts.get(chain[-1])) is not None:
        chain.append(following)
        if following in chain[:-1]:
            break
    return chain
