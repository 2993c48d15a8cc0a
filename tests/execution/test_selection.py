"""Leave-one-domain-out selection from the suite file to the table."""

from __future__ import annotations

import pytest

from robusteval.execution.events import SilentListener
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.execution.work import train_cell
from robusteval.methods.leave_one_out import chosen_validation
from robusteval.planning.expand import expand
from robusteval.planning.expanded import Expansion
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import make_plan
from robusteval.schema.cells import TrainCell
from robusteval.schema.errors import CellError
from robusteval.schema.records import TrainingResult
from robusteval.scoring.notes import notes
from robusteval.scoring.table import score
from robusteval.store.store import Store

SUITE = """\
name: left-out
version: 1
summary: Weights chosen by domains that were left out.
train:
  data: digits
  domains: [upright, inverted, blurred]
  folds: leave-one-out
  architecture: {name: small-cnn, params: {width: 4}}
methods:
  - {method: erm, params: {select: leave-one-domain-out, iterations: 9, evaluate_every: 3, batch_size: 32, lr: 0.2}}
evaluate:
  id: {examples: 12, robust_examples: 4}
  ood: {examples: 20, robust_examples: 4}
  threats: [{epsilon: 0.1, attacks: [fgsm]}]
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Expansion, Store]:
    folder = tmp_path_factory.mktemp("left-out")
    (folder / "s.yaml").write_text(SUITE)
    store = Store.open(folder / "store")
    expansion = expand(load_suite(folder / "s.yaml"))
    summary = run_plan(make_plan(expansion, store.state), store, RunOptions(executor="serial"), SilentListener())
    assert not summary.failed and not summary.blocked
    return expansion, store


def training(store: Store, key: str) -> TrainingResult:
    found = store.get(key).training
    assert found is not None
    return found


def scored(expansion: Expansion) -> list[TrainCell]:
    return [item.cell for item in expansion.cells if isinstance(item.cell, TrainCell) and item.role == "train"]


def test_each_fold_keeps_the_validation_that_is_best_on_its_left_out_domains(
    ran: tuple[Expansion, Store],
) -> None:
    expansion, store = ran
    for cell in scored(expansion):
        accuracies = [training(store, key).diagnostics["watched"][domain] for domain, key in cell.selected_by.items()]
        found = training(store, cell.key)
        assert [len(one) for one in accuracies] == [3, 3]
        assert found.selected_epoch == chosen_validation(accuracies)
        assert found.selected_on == "leave-one-domain-out"
        assert (found.weights == found.checkpoints["last"]) == (found.selected_epoch == 3)


def test_the_passes_of_all_that_selected_are_counted(ran: tuple[Expansion, Store]) -> None:
    expansion, store = ran
    for cell in scored(expansion):
        others = [training(store, key) for key in cell.selected_by.values()]
        at_least = sum(one.budget.forward + one.selection_budget.forward for one in others)
        found = training(store, cell.key)
        assert found.selection_budget.forward > at_least
        assert found.budget.forward == 9 * 32


def test_the_table_says_what_selected_and_what_the_other_weights_reach(ran: tuple[Expansion, Store]) -> None:
    expansion, store = ran
    table = score(expansion.stored, {item.key: store.get(item.key) for item in expansion.cells})
    (row,) = table.rows
    assert row.selected_on == ("leave-one-domain-out",)
    assert row.audit is not None
    text = " ".join(notes(table))
    assert "Weights selected by leave-one-domain-out: erm." in text
    assert "between the row's, the last and the best-validated weights" in text


def test_without_the_other_trainings_nothing_is_selected(ran: tuple[Expansion, Store]) -> None:
    expansion, store = ran
    cell = scored(expansion)[0].model_copy(update={"selected_by": {}})
    with pytest.raises(CellError, match="needs a training without each domain"):
        train_cell(cell, store, "cpu", lambda fraction, what: None)
