"""The store: what is written once stays, what is damaged is named, and nothing leaves its folder."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.schema.cells import CellStart, DataSlice, EvalCell, TrainCell
from robusteval.schema.digest import ids_digest
from robusteval.schema.errors import CorruptRecordError, NewerFormatError, StoreError, UsageError
from robusteval.schema.records import (
    Bits,
    Budget,
    Evaluation,
    Failure,
    Metric,
    ResultRecord,
    Timing,
    TrainingResult,
    result_digest,
)
from robusteval.schema.types import Component
from robusteval.store.backend import LocalBackend
from robusteval.store.envelope import decode_record, encode_record
from robusteval.store.provenance import describe_provenance
from robusteval.store.store import Store

PROVENANCE = describe_provenance("cpu", 1)
TIMING = Timing(started_at="2026-01-01T00:00:00+00:00", wall_s=1.0)


def eval_cell(seed: int = 0) -> EvalCell:
    ids = ["upright/1", "upright/2", "upright/3"]
    data = DataSlice(
        dataset=Component(name="digits"),
        revision="1",
        domains=("upright",),
        split="test",
        n=3,
        ids_digest=ids_digest(ids),
    )
    return EvalCell(model=CellStart(cell="0" * 64), data=data, evaluator=Component(name="clean"), protocol=1, seed=seed)


def record(flags: list[bool], seed: int = 0) -> ResultRecord:
    cell = eval_cell(seed)
    found = Evaluation(
        metrics=(Metric(name="accuracy", value=sum(flags) / len(flags), n=len(flags)),),
        outcomes={"clean": Bits.pack(flags)},
        domains=(("upright", len(flags)),),
    )
    return ResultRecord(
        status="ok", cell_key=cell.key, cell=cell, evaluation=found,
        result_digest=result_digest(cell.key, found, None), provenance=PROVENANCE, timing=TIMING,
    )  # fmt: skip


def failure(seed: int = 0) -> ResultRecord:
    cell = eval_cell(seed)
    return ResultRecord(
        status="failed", cell_key=cell.key, cell=cell,
        failure=Failure(type="CellError", message="NaN logits", traceback="...", stage="eval"),
        result_digest=result_digest(cell.key, None, None), provenance=PROVENANCE, timing=TIMING,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_a_record_comes_back_equal(store: Store) -> None:
    stored = record([True, False, True])
    assert store.put(stored).status == "stored"
    assert store.get(stored.cell_key) == stored
    assert store.state(stored.cell_key)[0] == "done"
    assert list(store.records()) == [stored]


def test_the_same_result_twice_changes_nothing(store: Store) -> None:
    stored = record([True, False, True])
    store.put(stored)
    later = stored.model_copy(update={"timing": Timing(started_at="2027-01-01T00:00:00+00:00", wall_s=9.0)})
    assert store.put(later).status == "unchanged"
    assert store.get(stored.cell_key).timing == TIMING


def test_another_result_of_the_same_question_is_kept_beside_the_first_and_its_flips_are_counted(store: Store) -> None:
    first, second = record([True, False, True]), record([True, True, False])
    store.put(first)
    outcome = store.put(second)
    assert (outcome.status, outcome.flipped) == ("conflict", 2)
    assert store.get(first.cell_key) == first
    assert store.conflicts(first.cell_key) == [second.result_digest]


def test_a_failure_is_shown_until_a_result_replaces_it(store: Store) -> None:
    failed = failure()
    store.put(failed)
    assert store.state(failed.cell_key) == ("failed", "CellError: NaN logits")
    store.put(record([True, True, True]))
    assert store.state(failed.cell_key)[0] == "done"
    assert store.get_failure(failed.cell_key) is None


def test_a_failure_never_hides_a_result(store: Store) -> None:
    stored = record([True, True, True])
    store.put(stored)
    store.put(failure())
    assert store.state(stored.cell_key)[0] == "done"


def _file_of(store: Store, stored: ResultRecord) -> Path:
    return store.local / "records" / stored.cell_key[:2] / f"{stored.cell_key}.json"


@pytest.mark.parametrize("damage", ["truncated", "empty", "not json", "flipped outcome", "renamed", "no digest"])
def test_a_damaged_record_is_named_and_not_overwritten(store: Store, damage: str) -> None:
    stored = record([True, False, True])
    store.put(stored)
    file = _file_of(store, stored)
    text = file.read_text()
    document = json.loads(text)
    if damage == "truncated":
        text = text[: len(text) // 2]
    elif damage == "empty":
        text = ""
    elif damage == "not json":
        text = "hello"
    elif damage == "flipped outcome":
        document["evaluation"]["outcomes"]["clean"]["bits"] = Bits.pack([True, True, True]).bits
        text = json.dumps(document)
    elif damage == "renamed":
        text = encode_record(record([True, False, True], seed=7)).decode()
    else:
        del document["record_digest"]
        text = json.dumps(document)
    file.write_text(text)
    state, reason = store.state(stored.cell_key)
    assert state == "corrupt"
    assert str(file) in reason
    with pytest.raises(CorruptRecordError):
        store.put(record([True, True, True]))
    assert file.read_text() == text


@pytest.mark.parametrize(
    "place", ["evaluation.metrics.0.n", "evaluation.budget.forward", "timing.wall_s", "provenance.device"]
)
def test_a_change_of_any_field_is_noticed(store: Store, place: str) -> None:
    stored = record([True, False, True])
    store.put(stored)
    file = _file_of(store, stored)
    document = part = json.loads(file.read_text())
    *path, last = place.split(".")
    for name in path:
        part = part[int(name) if name.isdecimal() else name]
    part[last] = "cuda" if last == "device" else 7
    file.write_text(json.dumps(document))
    with pytest.raises(CorruptRecordError, match="record_digest"):
        store.get(stored.cell_key)


def test_a_changed_failure_is_noticed(store: Store) -> None:
    failed = failure()
    store.put(failed)
    file = store.local / "failures" / failed.cell_key[:2] / f"{failed.cell_key}.json"
    file.write_text(file.read_text().replace("NaN logits", "all is well"))
    state, reason = store.state(failed.cell_key)
    assert state == "corrupt"
    assert str(file) in reason


@given(
    wall_s=st.floats(0.0, allow_nan=False, allow_infinity=False),
    message=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_every_record_survives_its_file(wall_s: float, message: str) -> None:
    failed = failure()
    assert failed.failure is not None
    changed = failed.model_copy(
        update={
            "timing": Timing(started_at="now", wall_s=wall_s),
            "failure": failed.failure.model_copy(update={"message": message}),
        }
    )
    assert decode_record(encode_record(changed), "here", "repair") == changed


@pytest.mark.parametrize("text", ["[]", "null", "[" * 100_000, '{"a": NaN}', '{"schema_version": "2"}'])
def test_what_is_no_record_is_damaged(store: Store, text: str) -> None:
    stored = record([True, False, True])
    store.put(stored)
    _file_of(store, stored).write_text(text)
    with pytest.raises(CorruptRecordError, match="damaged record"):
        store.get(stored.cell_key)


def test_a_record_of_a_newer_version_is_refused_by_name_and_never_set_aside(store: Store) -> None:
    stored = record([True, False, True])
    store.put(stored)
    file = _file_of(store, stored)
    text = file.read_text().replace('"schema_version": 1', '"schema_version": 2').replace("metrics", "numbers")
    file.write_text(text)
    state, reason = store.state(stored.cell_key)
    assert state == "failed"
    assert f"{file}: written by a newer robusteval (schema 2" in reason
    store.set_aside(stored.cell_key)
    for attempt in (lambda: store.put(stored), lambda: store.refuse_newer(stored.cell_key)):
        with pytest.raises(NewerFormatError, match="upgrade"):
            attempt()
    assert file.read_text() == text


@pytest.mark.parametrize("folder", ["records", "failures"])
def test_a_directory_in_the_place_of_a_record_is_damage_and_can_be_set_aside(store: Store, folder: str) -> None:
    stored = record([True, False, True])
    place = store.local / folder / stored.cell_key[:2] / f"{stored.cell_key}.json"
    place.mkdir(parents=True)
    (place / "keep").write_text("kept")
    state, reason = store.state(stored.cell_key)
    assert state == "corrupt"
    assert str(place) in reason
    store.set_aside(stored.cell_key)
    assert store.state(stored.cell_key)[0] == "missing"
    assert [file.read_text() for file in (store.local / "damaged").glob("*/keep")] == ["kept"]


def test_damaged_scratch_is_named_and_set_aside_and_the_rest_of_it_stays(store: Store) -> None:
    key = "ab" * 32
    store.put(failure())
    for owner in (key, failure().cell_key):
        store.scratch(owner).put("training", b"state")
        store.scratch(owner).put("other", b"state")
        file = store.local / "scratch" / owner / "training"
        file.write_bytes(b"half")
        state, reason = store.state(owner)
        assert state == "corrupt"
        assert str(file) in reason
        store.set_aside(owner)
        assert store.scratch(owner).get("training") is None
        assert store.scratch(owner).get("other") == b"state"
    assert store.state(key)[0] == "missing"
    assert store.state(failure().cell_key)[0] == "failed"
    assert {file.read_bytes() for file in (store.local / "damaged").iterdir()} == {b"half"}


def test_one_bad_file_among_records_and_plans_is_named_and_the_others_are_read(store: Store) -> None:
    stored = record([True, False, True])
    store.put(stored)
    for name in ("records/xx/foo.json", "plans/other@1.json"):
        (store.local / name).parent.mkdir(parents=True, exist_ok=True)
        (store.local / name).write_text("{")
    damaged: list[str] = []
    assert list(store.records(damaged)) == [stored]
    assert store.plans(damaged) == []
    assert [name in line for name, line in zip(("foo.json", "other@1.json"), damaged, strict=True)] == [True, True]
    with pytest.raises(CorruptRecordError):
        list(store.records())
    with pytest.raises(CorruptRecordError):
        store.plans()
    assert store.get_plan("mine") is None
    with pytest.raises(CorruptRecordError, match="damaged plan"):
        store.get_plan("other")


def test_a_damaged_record_set_aside_can_be_computed_anew_and_is_still_there_to_look_at(store: Store) -> None:
    stored = record([True, False, True])
    store.put(stored)
    _file_of(store, stored).write_text("half")
    store.set_aside(stored.cell_key)
    assert store.state(stored.cell_key)[0] == "missing"
    assert [file.read_text() for file in (store.local / "damaged").iterdir()] == ["half"]
    assert store.put(stored).status == "stored"


def test_a_train_cell_whose_checkpoint_is_damaged_or_gone_is_not_done(store: Store) -> None:
    data = eval_cell().data.model_copy(update={"split": "train"})
    cell = TrainCell(
        data=data, architecture=Component(name="small-cnn"), method=Component(name="erm"), protocol=1, seed=0
    )
    weights = store.put_artefact(b"weights")
    trained = TrainingResult(
        weights=weights, budget=Budget(), n_examples=3, selected_on="last", selected_epoch=1, history=()
    )
    store.put(
        ResultRecord(
            status="ok", cell_key=cell.key, cell=cell, training=trained,
            result_digest=result_digest(cell.key, None, trained), provenance=PROVENANCE, timing=TIMING,
        )
    )  # fmt: skip
    assert store.state(cell.key)[0] == "done"
    file = store.local / "artefacts" / weights[:2] / f"{weights}.safetensors"
    file.write_bytes(b"weigh")
    state, reason = store.state(cell.key)
    assert state == "corrupt"
    assert str(file) in reason
    file.unlink()
    assert store.state(cell.key)[0] == "corrupt"
    store.set_aside(cell.key)
    assert store.state(cell.key)[0] == "missing"


def test_artefacts_are_addressed_by_content(store: Store) -> None:
    digest = store.put_artefact(b"weights")
    assert store.put_artefact(b"weights") == digest
    assert store.get_artefact(digest) == b"weights"
    with pytest.raises(StoreError, match="missing"):
        store.get_artefact("0" * 64)


@pytest.mark.parametrize("kind", ["flipped", "folder"])
def test_a_damaged_artefact_gives_way_to_the_right_bytes(store: Store, kind: str) -> None:
    digest = store.put_artefact(b"weights")
    file = store.local / "artefacts" / digest[:2] / f"{digest}.safetensors"
    file.unlink()
    if kind == "flipped":
        file.write_bytes(b"weighty")
    else:
        file.mkdir()
    with pytest.raises(CorruptRecordError, match=digest):
        store.get_artefact(digest)
    assert store.put_artefact(b"weights") == digest
    assert store.get_artefact(digest) == b"weights"
    assert len(list((store.local / "damaged").iterdir())) == 1


def test_groups_come_back_in_order_and_a_damaged_id_list_is_named(store: Store) -> None:
    ids, groups = ("a/1", "b/1"), ("1", "1")
    store.put_ids(ids, groups)
    assert store.groups(ids_digest(ids)) == ["1", "1"]
    store.put_ids(("x",), ("x",))
    assert store.groups(ids_digest(("x",))) is None
    with pytest.raises(StoreError, match="id list is missing"):
        store.groups("0" * 64)
    (store.local / "ids" / f"{ids_digest(ids)}.json").write_text('{"ids": ["a/1"], "groups": null}')
    with pytest.raises(CorruptRecordError, match="damaged id list"):
        store.groups(ids_digest(ids))


@pytest.mark.parametrize("groups", [None, ["x", "x"]])
def test_changed_groups_are_noticed_and_the_list_can_be_written_again(store: Store, groups: list[str] | None) -> None:
    ids = ("a/1", "b/1")
    store.put_ids(ids, ("1", "1"))
    file = store.local / "ids" / f"{ids_digest(ids)}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "groups": groups}))
    with pytest.raises(CorruptRecordError, match="damaged id list"):
        store.groups(ids_digest(ids))
    store.put_ids(ids, ("1", "1"))
    assert store.groups(ids_digest(ids)) == ["1", "1"]
    assert len(list((store.local / "damaged").iterdir())) == 1


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "~/x", ""])
def test_a_path_that_leaves_the_store_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError):
        LocalBackend(tmp_path).write(path, b"")


def test_a_store_uri_names_a_folder(tmp_path: Path) -> None:
    assert Store.open(tmp_path.as_uri()).local == tmp_path
    assert Store.open(Store.open(tmp_path / "with space").uri).local == tmp_path / "with space"
    with pytest.raises(UsageError, match="scheme 'ftp' is not supported; give a folder"):
        Store.open("ftp://host/store")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        Store.open(tmp_path / "file")


def test_a_write_that_fails_leaves_the_old_blob_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(tmp_path)
    backend.write("a/b.json", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        backend.write("a/b.json", b"new")
    with pytest.raises(OSError, match="No space left"):
        backend.create("a/c.json", b"new")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.json"]
    assert backend.read("a/b.json") == b"old"


def _create_many(root: Path, mark: bytes, barrier: object, won: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    backend = LocalBackend(root)
    won.value = sum(backend.create(f"r/{i}", mark) for i in range(50))  # type: ignore[attr-defined]


def test_of_two_processes_that_create_one_blob_exactly_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    wins = [context.Value("i", 0), context.Value("i", 0)]
    workers = [
        context.Process(target=_create_many, args=(tmp_path, mark, barrier, won))
        for mark, won in zip((b"a", b"b"), wins, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wins[0].value + wins[1].value == 50
    assert {len(file.read_bytes()) for file in (tmp_path / "r").iterdir()} == {1}


@given(blob=st.binary(max_size=200), cut=st.integers(1, 60))
def test_scratch_returns_what_was_put_or_names_the_damage(
    tmp_path_factory: pytest.TempPathFactory, blob: bytes, cut: int
) -> None:
    scratch = Store.open(tmp_path_factory.mktemp("s")).scratch("k")
    assert scratch.get("state") is None
    scratch.put("state", blob)
    assert scratch.get("state") == blob
    file = scratch.folder / "state"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(CorruptRecordError, match="damaged"):
        scratch.get("state")
