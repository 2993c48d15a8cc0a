"""The rows of a suite: methods with their parameters, and what each of them starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robusteval.planning import targets
from robusteval.planning.checking import Checking, Findings
from robusteval.planning.starts import is_pretrained, pretrained_checkpoint, start_path
from robusteval.schema.errors import RobustevalError, unknown_name
from robusteval.schema.protocols import LEAVE_ONE_OUT
from robusteval.schema.source import Loc, Source
from robusteval.schema.specs import MethodSpec, TrainSpec
from robusteval.schema.types import Component

FRESH_HEAD = "fresh head"
"""What the notes of a checkpoint say whose last layer was drawn at random."""


class RowChecks(Checking):
    """Checks `methods`, once the training data and the architecture are known.

    Attributes:
        rows: label to position of the rows that are well formed.
        known: whether these are all rows, so that a name that is not among them is wrong.
    """

    def __init__(self, source: Source, findings: Findings) -> None:
        super().__init__(source, findings)
        self.rows: dict[str, int] = {}
        self.known = True

    def methods(self) -> None:
        """Names, parameters and labels of the rows."""
        written = self.source.at(("methods",))
        for index in range(len(written) if isinstance(written, list) else 0):
            loc = ("methods", index)
            spec = self.part(MethodSpec, *loc)
            if spec is None:
                self.known = False
                continue
            if spec.row in self.rows:
                where = self.source.line(("methods", self.rows[spec.row]))
                text = f"row {spec.row!r} is on line {where} already; give one of the two another 'label'"
                self.say((*loc, "label" if spec.label else "method"), text)
                continue
            self.rows[spec.row] = index
            self._method(spec, loc)

    def _method(self, spec: MethodSpec, loc: Loc) -> None:
        found = self.component("method", Component(name=spec.method, params=spec.params), loc, "method")
        if found is None:
            # A row may be called by a name that is still to be corrected; what refers to it is judged then.
            self.known &= spec.label is not None or spec.method in targets.registry("method")
            return
        if found.start == "required" and spec.start is None:
            text = f"method {spec.method!r} needs a 'start': the label of another row, or a .safetensors file"
            self.say((*loc, "method"), text)
        own = spec.architecture
        if own is not None and self.component("architecture", own, (*loc, "architecture")):
            self.attempt((*loc, "architecture"), lambda: targets.resolve_architecture(own))
        params = targets.params_of(found).model_validate(spec.params)
        if getattr(params, "select", None) == LEAVE_ONE_OUT:
            self._leave_one_out(spec, found, (*loc, "params", "select"))
        for position, component in enumerate(getattr(params, "augment", ())):
            self.component("augmentation", component, (*loc, "params", "augment", position))
        self.attempt((*loc, "params"), lambda: targets.resolve_method(spec.method, spec.params))

    def _leave_one_out(self, spec: MethodSpec, found: Any, loc: Loc) -> None:
        """Selection by leave-one-domain-out needs a choice to make and a training domain to leave out."""
        train = self.part(TrainSpec, "train")
        if found.selects_itself:
            self.say(loc, f"method {spec.method!r} chooses its weights by itself; remove 'select'")
        elif train is not None and train.trained_at_once < 2:
            text = f"{LEAVE_ONE_OUT} needs two training domains or more, a training here sees one"
            self.say(loc, f"{text}; list more under train.domains, or write select: best-validation")

    def starts(self) -> None:
        """Starts exist, fit the data, and lead somewhere."""
        starts: dict[str, str] = {}
        for row, index in self.rows.items():
            spec = self.part(MethodSpec, "methods", index)
            if spec is None or spec.start is None:
                continue
            loc = ("methods", index, "start")
            path = start_path(spec.start, self.rows, self.source.path)
            if spec.start in self.rows:
                starts[row] = spec.start
                self._same_architecture(spec, loc)
                if spec.weights is not None:
                    self.say(
                        (*loc[:-1], "weights"), f"{spec.start!r} is a row, whose weights need no key map; remove it"
                    )
            elif is_pretrained(spec, self.rows, self.source.path):
                self._pretrained(spec, loc)
            elif path is not None:
                self._weights(spec, path, loc)
            elif self.known:
                others = [name for name in self.rows if name != row]
                self.say(loc, unknown_name("start row", spec.start, others) + ", or give a .safetensors file")
        for row in _on_cycles(starts):
            chain = " -> ".join(_chain(row, starts))
            self.say(("methods", self.rows[row], "start"), f"starts in a circle: {chain}; one row must start fresh")

    def _row_architecture(self, spec: MethodSpec) -> Component | None:
        """The network of a row, if it is known; what is wrong with a row's own is said with the row."""
        own = spec.architecture
        if own is None:
            return self.findings.architecture
        try:
            return targets.resolve_architecture(own)
        except (RobustevalError, ValidationError):
            return None

    def _same_architecture(self, spec: MethodSpec, loc: Loc) -> None:
        other = self.part(MethodSpec, "methods", self.rows[str(spec.start)])
        ours, theirs = self._row_architecture(spec), self._row_architecture(other) if other is not None else None
        if ours is not None and theirs is not None and ours != theirs:
            text = f"row {spec.start!r} is a {_spelled(theirs)}, this row a {_spelled(ours)}; make them the same"
            self.say(loc, text)

    def _pretrained(self, spec: MethodSpec, loc: Loc) -> None:
        dataset, architecture = self.findings.dataset, self._row_architecture(spec)
        if dataset is None or architecture is None:
            return
        seeds = self.source.at(("seeds",))
        seed = seeds[0] if isinstance(seeds, list) and seeds and type(seeds[0]) is int and seeds[0] >= 0 else 0
        found = self.attempt(loc, lambda: pretrained_checkpoint(spec, self.source.path, architecture, dataset, seed))
        if found is None:
            return
        self.findings.weights[str(spec.start)] = found
        methods = targets.registry("method")
        if spec.method in methods and not methods.load(spec.method).trains:
            notes = targets.inspect_checkpoint(found, source=str(spec.start)).notes
            if FRESH_HEAD in notes:
                text = f"{spec.start!r} has other classes than the data, and method {spec.method!r} trains no new head"
                self.say(loc, text + "; fine-tune it, or take weights for these classes")

    def _weights(self, spec: MethodSpec, path: Path, loc: Loc) -> None:
        text = str(spec.start)
        info = self.attempt(loc, lambda: targets.inspect_checkpoint(path, source=text))
        if info is None:
            return
        self.findings.weights[text] = path
        dataset = self.findings.dataset
        if dataset is not None:
            methods = targets.registry("method")
            any_classes = spec.method in methods and methods.load(spec.method).replaces_head
            self.attempt(loc, lambda: targets.check_fits(info, dataset, source=text, any_classes=any_classes))
        architecture = self._row_architecture(spec)
        if architecture is not None and architecture != info.architecture:
            ours, theirs = _spelled(architecture), _spelled(info.architecture)
            self.say(loc, f"checkpoint {text!r} is a {theirs}, this suite trains a {ours}; make them the same")


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
