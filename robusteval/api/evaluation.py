"""Measure a model that a user has in hand on the cells of a suite."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robusteval.api.canaries import check_input_contract
from robusteval.api.culprits import examples_given
from robusteval.api.fingerprint import model_digest
from robusteval.api.models import AnyModel, ArrayNetwork, Preprocessing, as_classifier, family_of
from robusteval.api.results import ModelResults
from robusteval.attacks.base import build_attack
from robusteval.data.slices import load_slice
from robusteval.evaluators.model_checks import ModelError
from robusteval.execution.cell import run_live
from robusteval.execution.device import resolve_device
from robusteval.models.classifier import Classifier
from robusteval.planning.expand import expand
from robusteval.planning.expanded import Expansion
from robusteval.planning.loader import LoadedSuite, load_suite
from robusteval.schema.cells import EvalCell, WeightsStart
from robusteval.schema.errors import UsageError
from robusteval.schema.plans import RowSeed, StoredPlan, stands_for
from robusteval.schema.records import ResultRecord
from robusteval.schema.specs import SliceSpec
from robusteval.schema.types import Access, Component
from robusteval.store.store import Store


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model in hand is measured.

    Attributes:
        n: at most so many examples a domain, clean and attacked; what the suite says if None.
        cells: only these roles (`r_id` means every threat); all if None.
        seeds: evaluation seeds, each a repetition of every cell; the suite's own if None.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        check_input: compare the declared preprocessing with the usual others first.
        only_stored: never compute; a cell without a stored result is an error.
    """

    n: int | None = None
    cells: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    device: str = "auto"
    check_input: bool = True
    only_stored: bool = False


def evaluate(
    model: AnyModel,
    suite: str | Path = "digits",
    *,
    n: int | None = None,
    device: str = "auto",
    cells: Sequence[str] | None = None,
    store: str | Path | None = None,
    name: str | None = None,
    **declared: Any,
) -> ModelResults:
    """Measure a model on the cells of a suite: clean and robust accuracy, in and out of distribution.

    Args:
        model: a `torch.nn.Module` that returns logits, a timm model, a `Classifier`, a function from (B, C, H, W)
            float32 arrays to logits, or the path of a .safetensors checkpoint.
        suite: name of a packaged suite, or path of a YAML file; its training methods play no part.
        n: at most so many examples a domain.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        cells: only these roles, such as `["a_id", "r_id"]`.
        store: folder that keeps the results, so that the same model is not measured twice; a temporary one if None.
        name: what tables call the model; its class by default.
        **declared: `mean`, `std` and `value_range`, as in `Preprocessing`; `seeds`, `check_input` and `only_stored`, as
            in `EvaluationOptions`.

    Raises:
        UsageError: an argument makes no sense, the model has no weights, or no gradients and an attack needs them.
        InputContractError: the model expects other input than declared.
        CellError: the model does not fit the data, its answers are no floating-point logits or depend on what it was
            asked before, or it is to be attacked and answers with NaN or infinity.
        Exception: what the model itself raises, with the ids of the examples it was given.

    Examples:
        >>> import robusteval
        >>> found = robusteval.evaluate(lambda images: images.reshape(-1, 768)[:, :10], n=20, cells=["a_id"])
        >>> found.scores.rows[0].a_id.n
        20
    """
    preprocessing = Preprocessing(
        **{key: declared.pop(key) for key in ("mean", "std", "value_range") if key in declared}
    )
    try:
        options = EvaluationOptions(n=n, device=device, cells=None if cells is None else tuple(cells), **declared)
    except TypeError as error:
        raise UsageError(f"evaluate: {str(error).removeprefix('EvaluationOptions.__init__() ')}") from None
    loaded = limited(load_suite(suite), options.n)
    classifier = as_classifier(
        model,
        classes=len(loaded.dataset.classes),
        input_shape=loaded.dataset.image_shape,
        preprocessing=preprocessing,
    )
    place = _temporary_store() if store is None else Store.open(store)
    family = family_of(model, classifier)
    return _Evaluation(classifier, loaded, options, place).run(_label(name or family), family)


def _temporary_store() -> Store:
    """A store whose folder goes when the last result that refers to it goes."""
    folder = tempfile.mkdtemp(prefix="robusteval-")
    store = Store.open(folder)
    weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
    return store


def limited(suite: LoadedSuite, n: int | None) -> LoadedSuite:
    """The suite with at most `n` examples a domain, clean and attacked.

    Raises:
        UsageError: `n` is not a positive number.
    """
    if n is None:
        return suite
    if not isinstance(n, int) or n < 1:
        raise UsageError(f"n = {n!r}: measure a whole number of examples a domain, at least 1")
    spec = suite.spec.evaluate
    there = min(len(suite.dataset.ids(domain, "test")) for domain in suite.dataset.domains)
    other = spec.ood.data is not None or spec.ood.shifts is not None
    halves = {"id": _limited(spec.id, n, there), "ood": _limited(spec.ood, n, n + 1 if other else there)}
    evaluate_spec = spec.model_copy(update=halves)
    return replace(suite, spec=suite.spec.model_copy(update={"evaluate": evaluate_spec}))


def _limited(spec: SliceSpec, n: int, there: int) -> SliceSpec:
    """A half with at most `n` examples a domain; counts that are left out mean all of the `there` that there are."""
    found = {name: getattr(spec, name) for name in ("examples", "robust_examples")}
    found = {name: min(n, count) if count is not None else (n if n < there else None) for name, count in found.items()}
    return spec.model_copy(update=found)


def _label(text: str) -> str:
    """A name that tables and files can hold."""
    return re.sub(r"[^A-Za-z0-9._+@=-]+", "-", text).strip("-.")[:80] or "model"


class _Evaluation:
    def __init__(self, model: Classifier, suite: LoadedSuite, options: EvaluationOptions, store: Store) -> None:
        self.model, self.suite, self.options, self.store = model, suite, options, store
        self.threads = suite.spec.resources.cpus

    def run(self, label: str, family: str) -> ModelResults:
        device = resolve_device(self.options.device)
        with _on_device(self.model, device):
            expansion = expand(self.suite)
            digest = self._look(expansion)
            roles = self._cells(digest, expansion)
            self._refuse_gradients(roles)
            records = {cell.key: self._measure(cell, device) for cells in roles.values() for cell in cells.values()}
        seeds = sorted({seed for cells in roles.values() for seed in cells})
        rows = tuple(
            RowSeed(
                label=label,
                method=family,
                seed=seed,
                train_key=None,
                cells={role: cells[seed].key for role, cells in roles.items() if seed in cells},
            )
            for seed in seeds
        )
        plan = StoredPlan.model_validate(
            {**expansion.stored.model_dump(exclude={"rows", "baseline"}), "rows": [row.model_dump() for row in rows]}
        )
        return ModelResults(plan, records, self.store, family=family)

    def _look(self, expansion: Expansion) -> str:
        """Check what the model expects on clean examples, and identify it."""
        by_key = {item.key: item.cell for item in expansion.cells}
        roles = expansion.stored.rows[0].cells
        cell = by_key[roles.get("a_id", next(iter(roles.values())))]
        assert isinstance(cell, EvalCell)
        with self._naming_examples(cell):
            examples = load_slice(cell.data)
            digest = model_digest(self.model, examples)
            if self.options.check_input and not self.options.only_stored:
                dataset = self.suite.dataset
                check_input_contract(self.model, examples, (tuple(dataset.mean), tuple(dataset.std)))
        return digest

    def _cells(self, digest: str, expansion: Expansion) -> dict[str, dict[int, EvalCell]]:
        """What the suite asks of a model, asked of this one, by role and evaluation seed."""
        by_key = {item.key: item.cell for item in expansion.cells}
        roles = expansion.stored.rows[0].cells
        chosen = tuple(roles) if self.options.cells is None else self.options.cells
        strange = [name for name in chosen if not any(stands_for(name, role) for role in roles)]
        if strange or not chosen:
            raise UsageError(
                f"suite {self.suite.spec.name} has no cell {', '.join(map(str, strange))}; it has {', '.join(roles)}"
            )
        asked: dict[str, dict[int, EvalCell]] = {}
        for role, key in roles.items():
            template = by_key[key]
            assert isinstance(template, EvalCell)
            if any(stands_for(name, role) for name in chosen):
                seeds = self.options.seeds or (template.seed,)
                asked[role] = {seed: _asked_of(digest, template, seed) for seed in seeds}
        return asked

    def _refuse_gradients(self, roles: dict[str, dict[int, EvalCell]]) -> None:
        if not isinstance(self.model.network, ArrayNetwork):
            return
        for role, cells in roles.items():
            cell = next(iter(cells.values()))
            if cell.threat is None:
                continue
            for written in cell.evaluator.params.get("attacks", ()):
                attack = build_attack(Component.model_validate(written), cell.threat)
                if any(stage.needs is Access.WHITE_BOX for stage in attack.stages()):
                    raise UsageError(
                        f"{role}: attack {written['name']!r} needs gradients, which a function on arrays has not; give "
                        f"a torch.nn.Module, or measure only cells such as a_id and a_ood"
                    )

    def _measure(self, cell: EvalCell, device: str) -> ResultRecord:
        if self.options.only_stored:
            state, reason = self.store.state(cell.key)
            if state != "done":
                raise UsageError(
                    f"cell {cell.key[:12]} ({cell.evaluator.name} on {', '.join(cell.data.domains)}) has no stored "
                    f"result ({reason}), and only stored ones are wanted"
                )
            return self.store.get(cell.key)
        with self._naming_examples(cell):
            return run_live(cell, self.model, self.store, device, self.threads)

    @contextmanager
    def _naming_examples(self, cell: EvalCell) -> Iterator[None]:
        """Add the ids of the examples to whatever the model raises, which comes out as the model raised it."""
        try:
            yield
        except Exception as error:
            own = error.__cause__ if isinstance(error, ModelError) and error.__cause__ is not None else error
            own.add_note(examples_given(self.model, cell))
            if own is error:
                raise
            raise own from own.__cause__


def _asked_of(digest: str, template: EvalCell, seed: int) -> EvalCell:
    written = template.model_dump()
    return EvalCell.model_validate({**written, "model": WeightsStart(weights=digest).model_dump(), "seed": seed})


@contextmanager
def _on_device(model: Classifier, device: str) -> Iterator[None]:
    """Move a model, and move it back."""
    before = model.device
    model.to(device)
    try:
        yield
    finally:
        model.to(before)
