"""What a cell asks for, done: open the data, build or load the model, train or evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from robusteval.data.batches import DeviceSet
from robusteval.data.imageset import Dataset, ImageSet
from robusteval.data.slices import load_slice, make_slice, open_dataset
from robusteval.evaluators import EVALUATORS
from robusteval.evaluators.adversarial_images import saved_parts
from robusteval.evaluators.base import EvaluationContext, Evaluator, no_progress
from robusteval.evaluators.details import BLOB as DETAILS
from robusteval.evaluators.shard_file import ShardFile
from robusteval.evaluators.sharding import Images, evaluate_shard, merge_shards
from robusteval.execution.selection import with_selection, with_selection_told
from robusteval.methods.outcome import TrainingOutcome
from robusteval.methods.parallel import ALONE, Ranks
from robusteval.methods.resolve import build_method
from robusteval.methods.trainer import train
from robusteval.models.build import build_classifier
from robusteval.models.checkpoint_info import inspect_checkpoint
from robusteval.models.checkpoints import load_checkpoint, save_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.schema.cells import CellStart, DataSlice, EvalCell, ModelRef, TrainCell
from robusteval.schema.errors import CellError
from robusteval.schema.records import Budget, Evaluation, TrainingResult
from robusteval.schema.shards import Shard
from robusteval.schema.types import Progress
from robusteval.store.scratch import Scratch
from robusteval.store.store import Store


def train_cell(cell: TrainCell, store: Store, device: str, progress: Progress, ranks: Ranks = ALONE) -> TrainingResult:
    """Train the model of `cell`, perhaps with other processes, and put its checkpoint into the store."""
    progress(0.0, "loading data")
    dataset = open_dataset(cell.data.dataset)
    method = build_method(cell.method)
    if not method.trains:
        return _as_given(cell, dataset, store)
    method = with_selection(method, cell, store, device)
    examples = DeviceSet(load_slice(cell.data, dataset), device)
    held_out = make_slice(cell.data.dataset, dataset, cell.data.domains, "validation", None)
    validation = DeviceSet(load_slice(held_out, dataset), device)
    if cell.start is None:
        model = build_classifier(
            cell.architecture,
            classes=len(dataset.classes),
            input_shape=dataset.image_shape,
            mean=dataset.mean,
            std=dataset.std,
            seed=cell.seed,
        )
        origin = {}
    else:
        model = load_model(cell.start, store)
        _check_start(model, dataset.image_shape)
        origin = _origin(cell.start, store)
    outcome = train(
        method,
        model=model.to(device),
        train=examples,
        validation=validation,
        seed=cell.seed,
        scratch=store.scratch(cell.key),
        progress=progress,
        ranks=ranks,
    )

    def encode() -> bytes:
        return save_checkpoint(outcome.model, cell.architecture, class_names=dataset.classes, extra=origin)

    result = TrainingResult(
        weights=store.put_artefact(encode()),
        checkpoints=_checkpoints(outcome, encode, store),
        budget=outcome.budget,
        selection_budget=outcome.selection_budget,
        n_examples=len(examples),
        selected_on=outcome.selected_on,
        selected_epoch=outcome.selected_epoch,
        history=tuple(outcome.history),
        diagnostics=outcome.diagnostics | ({"pretrained": origin} if origin else {}),
    )
    return with_selection_told(result, cell, store)


def _as_given(cell: TrainCell, dataset: Dataset[Any], store: Store) -> TrainingResult:
    """The start model as the result, without a pass."""
    if cell.start is None:
        raise CellError(f"method {cell.method.name!r} trains nothing and needs a start")
    _check_fits(load_model(cell.start, store), len(dataset.classes), dataset.image_shape)
    origin = _origin(cell.start, store)
    return TrainingResult(
        weights=_weights_of(cell.start, store),
        checkpoints={},
        budget=Budget(),
        selection_budget=Budget(),
        n_examples=0,
        selected_on="given",
        selected_epoch=0,
        history=(),
        diagnostics={"pretrained": origin} if origin else {},
    )


def evaluate_cell(cell: EvalCell, store: Store, device: str, progress: Progress) -> Evaluation:
    """Measure the model of `cell` on its slice, and store the ids of the slice."""
    return measure(cell, load_model(cell.model, store).to(device), store, progress)


def measure_share(
    cell: EvalCell, shard: Shard, scratch: Scratch, store: Store, device: str, progress: Progress
) -> ShardFile:
    """Measure the model of `cell` on one share of its slice.

    Args:
        cell: what to measure.
        shard: which share.
        scratch: scratch space of the share; adversarial images are left there.
        store: where the model is.
        device: where it runs.
        progress: told the finished fraction and what runs now.
    """
    model = load_model(cell.model, store).to(device)
    evaluator, examples, context = _asked(cell, model, scratch, progress)
    return evaluate_shard(evaluator, model, examples, context, shard)


def put_together(cell: EvalCell, shares: Sequence[ShardFile], images: Images, store: Store) -> Evaluation:
    """The evaluation that the shares of `cell` make up, without a pass, and the ids of its slice."""
    model, scratch = load_model(cell.model, store), store.scratch(cell.key)
    evaluator, examples, context = _asked(cell, model, scratch, no_progress)
    store.put_ids(examples.ids, examples.groups)
    return _kept(merge_shards(evaluator, model, examples, context, shares, images), scratch, store)


def measure(cell: EvalCell, model: Classifier, store: Store, progress: Progress) -> Evaluation:
    """Measure a model on the slice of `cell`, and store the ids of the slice.

    Args:
        cell: what to measure; the model it names is not looked at.
        model: the model, on its device; it is put into evaluation mode.
        store: where ids and artefacts go.
        progress: told the finished fraction and what runs now.
    """
    scratch = store.scratch(cell.key)
    evaluator, examples, context = _asked(cell, model, scratch, progress)
    store.put_ids(examples.ids, examples.groups)
    return _kept(evaluator.evaluate(model, examples, context), scratch, store)


def _asked(
    cell: EvalCell, model: Classifier, scratch: Scratch, progress: Progress
) -> tuple[Evaluator[Any], ImageSet, EvaluationContext]:
    """What the evaluation of a cell is made of, with the model in evaluation mode."""
    progress(0.0, "loading data")
    examples = load_slice(cell.data)
    _check_fits(model.eval(), len(examples.classes), examples.images.shape[1:])
    evaluator_class = EVALUATORS.load(cell.evaluator.name)
    evaluator = evaluator_class(evaluator_class.Params.model_validate(cell.evaluator.params))
    return evaluator, examples, EvaluationContext(cell.seed, cell.threat, scratch=scratch, progress=progress)


def _kept(evaluation: Evaluation, scratch: Scratch, store: Store) -> Evaluation:
    """The evaluation with what lies beside it in scratch space stored for good."""
    details = scratch.get(DETAILS)
    images = tuple(store.put_artefact(part) for part in saved_parts(scratch))
    digest = None if details is None else store.put_artefact(details)
    return evaluation.model_copy(update={"details": digest, "images": images})


def _checkpoints(outcome: TrainingOutcome, encode: Callable[[], bytes], store: Store) -> dict[str, str]:
    """Store what other selection rules would have kept."""
    digests = {}
    for rule, state in outcome.checkpoints.items():
        outcome.model.load_state_dict(state)
        digests[rule] = store.put_artefact(encode())
    return digests


def restore_ids(data: DataSlice, store: Store) -> None:
    """Write the id list of a slice again.

    Raises:
        RobustevalError: the data is gone or changed.
    """
    examples = load_slice(data)
    store.put_ids(examples.ids, examples.groups)


def load_model(reference: ModelRef, store: Store) -> Classifier:
    """Load the model that a cell refers to, on the CPU.

    Raises:
        StoreError: the cell that should have trained it has no result, or its checkpoint is missing or damaged.
    """
    digest = _weights_of(reference, store)
    model, _ = load_checkpoint(store.get_artefact(digest), source=f"artefact {digest[:12]}")
    return model


def _weights_of(reference: ModelRef, store: Store) -> str:
    """Digest of the checkpoint that a cell refers to."""
    if not isinstance(reference, CellStart):
        return reference.weights
    training = store.get(reference.cell).training
    if training is None:
        raise CellError(f"cell {reference.cell[:12]} is not a train cell, so it has no weights to start from")
    if reference.checkpoint is None:
        return training.weights
    if reference.checkpoint not in training.checkpoints:
        raise CellError(f"cell {reference.cell[:12]} keeps no weights by the rule {reference.checkpoint!r}")
    return training.checkpoints[reference.checkpoint]


def _origin(reference: ModelRef, store: Store) -> dict[str, str]:
    """Licence and source of pretrained weights, which hold for every model that is trained from them."""
    digest = _weights_of(reference, store)
    info = inspect_checkpoint(store.get_artefact(digest), source=f"artefact {digest[:12]}")
    return {name: text for name, text in (("licence", info.licence), ("source", info.source)) if text}


def _check_start(model: Classifier, image_shape: tuple[int, int, int]) -> None:
    if model.input_shape != image_shape:
        raise CellError(f"the start model takes images of {model.input_shape}, the data has {image_shape}")


def _check_fits(model: Classifier, classes: int, image_shape: tuple[int, ...] | torch.Size) -> None:
    if model.classes != classes:
        raise CellError(f"the model tells {model.classes} classes apart, the data has {classes}")
    if tuple(model.input_shape) != tuple(image_shape):
        raise CellError(f"the model takes images of {model.input_shape}, the data has {tuple(image_shape)}")
