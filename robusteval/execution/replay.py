"""From a record with saved adversarial images to their verification."""

from __future__ import annotations

from robusteval.data.slices import load_slice
from robusteval.evaluators.image_parts import IMAGES
from robusteval.evaluators.replaying import Replayer
from robusteval.execution.device import resolve_device
from robusteval.execution.work import load_model
from robusteval.schema.cells import EvalCell
from robusteval.schema.errors import UsageError
from robusteval.schema.records import ResultRecord
from robusteval.schema.replays import Replay
from robusteval.schema.types import ThreatModel
from robusteval.store.store import Store


def replay(record: ResultRecord, store: Store, device: str = "auto") -> Replay:
    """Verify the saved adversarial images of a record again, one forward pass each.

    Args:
        record: record of an eval cell that kept its images.
        store: the store that holds it, its model and its images.
        device: where the model runs; `auto`, `cpu`, `cuda` or `cuda:1`.

    Returns:
        What was verified and what was not; an image that fails is no error.

    Raises:
        UsageError: the record keeps no images, or the device is not there.
        StoreError: an artefact is missing or damaged, or holds something else than these images.
        DataError: the dataset is gone or changed.
    """
    cell, evaluation = record.cell, record.evaluation
    if not isinstance(cell, EvalCell) or evaluation is None or not isinstance(cell.threat, ThreatModel):
        raise UsageError(f"cell {record.cell_key[:12]} is not the attack of a model in a ball; it has no images")
    if cell.evaluator.params.get("keep", "none") == "none":
        raise UsageError(
            f"cell {record.cell_key[:12]} keeps no images; write keep: uint8 beside the attacks in the suite, and run "
            f"it again"
        )
    model = load_model(cell.model, store).to(resolve_device(device)).eval()
    replayer = Replayer(model, load_slice(cell.data), cell.threat, evaluation)
    for digest in evaluation.images:
        replayer.part(store.get_artefact(digest, IMAGES))
    return replayer.report(record.cell_key)
