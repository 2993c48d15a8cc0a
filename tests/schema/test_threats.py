from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from robusteval.schema.cells import CellStart, DataSlice, EvalCell
from robusteval.schema.digest import canonical_json, sha256_hex
from robusteval.schema.threats import RecolourThreat, SpatialThreat, Threat, ThreatKind, make_threat, read_threat
from robusteval.schema.types import Component, Epsilon, Norm, ThreatModel

D = sha256_hex(b"x")
ADAPTER: TypeAdapter[Threat] = TypeAdapter(Threat)
SPATIAL = SpatialThreat(rotation=30, translation=0.1)
RECOLOUR = RecolourThreat(epsilon=Epsilon("0.06"))
BALL = ThreatModel(norm=Norm.L2, epsilon=Epsilon("8/255"))


def cell(threat: Threat) -> EvalCell:
    data = DataSlice(
        dataset=Component(name="digits"), revision="1", domains=("upright",), split="test", n=3, ids_digest=D
    )
    return EvalCell(
        model=CellStart(cell=D),
        data=data,
        evaluator=Component(name="adversarial"),
        protocol=1,
        threat=threat,
        seed=0,
    )


@pytest.mark.parametrize(
    ("norm", "key"),
    [
        (Norm.LINF, "19086406cea0960fd382728f9b0997ed760e764be2b4a6364c79a96b0236e610"),
        (Norm.L2, "2745a62d352a00e2032b4c71193755edf6137a796d85790565f20b2ab009a3c5"),
        (Norm.L1, "10fbf4a8afb4c08d7919b3fe64fdd44ccf71f077d79175bb20d506dc5f248394"),
    ],
)
def test_keys_of_cells_inside_balls_are_pinned_so_that_old_stores_stay_valid(norm: Norm, key: str) -> None:
    assert cell(ThreatModel(norm=norm, epsilon=Epsilon("8/255"))).key == key


def test_a_ball_is_written_as_it_always_was() -> None:
    written = canonical_json(ADAPTER.dump_python(BALL, mode="json", context={"canonical": True}))
    assert written == b'{"access":"white-box","epsilon":"8/255","norm":"l2","targeted":false}'


@pytest.mark.parametrize("threat", [BALL, SPATIAL, RECOLOUR], ids=str)
def test_a_threat_of_any_kind_survives_json_inside_a_cell(threat: Threat) -> None:
    read = EvalCell.model_validate_json(cell(threat).model_dump_json())
    assert read.threat == threat
    assert type(read.threat) is type(threat)
    assert read.key == cell(threat).key


def test_without_a_norm_a_threat_is_an_linf_ball() -> None:
    assert ADAPTER.validate_python({"epsilon": "8/255"}) == ThreatModel(epsilon=Epsilon("8/255"))


def test_other_limits_are_another_question() -> None:
    threats = [
        BALL,
        SPATIAL,
        SpatialThreat(rotation=30, translation=0.2),
        RECOLOUR,
        RecolourThreat(epsilon=Epsilon("0.06"), grid=9),
    ]
    assert len({cell(threat).key for threat in threats}) == len(threats)
    assert cell(SPATIAL).key == cell(SpatialThreat(rotation=30.0, translation=0.1)).key


def test_names_tell_threats_apart() -> None:
    fine = RecolourThreat(epsilon=Epsilon("0.06"), grid=16)
    assert [str(threat) for threat in (BALL, SPATIAL, RECOLOUR, fine)] == [
        "l2-8/255",
        "spatial-30deg-0.1",
        "recolour-0.06",
        "recolour-0.06-grid16",
    ]


@pytest.mark.parametrize(
    ("threat", "only_clean"),
    [
        (ThreatModel(epsilon=Epsilon(0)), True),
        (ThreatModel(epsilon=Epsilon("1/255")), False),
        (SpatialThreat(rotation=0, translation=0), True),
        (SpatialThreat(rotation=1, translation=0), False),
        (SpatialThreat(rotation=0, translation=0.1), False),
        (RecolourThreat(epsilon=Epsilon(0)), True),
        (RECOLOUR, False),
    ],
)
def test_a_threat_without_room_allows_only_the_clean_image(threat: Threat, only_clean: bool) -> None:
    assert threat.only_clean is only_clean


@pytest.mark.parametrize("kind", list(ThreatKind))
def test_every_kind_can_be_written_in_a_suite(kind: ThreatKind) -> None:
    limits = {"rotation": 10.0} if kind is ThreatKind.SPATIAL else {"epsilon": Epsilon("0.1")}
    threat = make_threat(kind, **limits)  # type: ignore[arg-type]
    assert threat.norm == kind.value


@pytest.mark.parametrize(
    ("kind", "limits", "says"),
    [
        ("linf", {}, "norm linf needs 'epsilon'"),
        ("recolour", {}, "norm recolour needs 'epsilon'"),
        ("spatial", {}, "needs 'rotation' in degrees, 'translation' as a share"),
        ("spatial", {"epsilon": Epsilon("0.1"), "rotation": 3.0}, "norm spatial has no 'epsilon'"),
        (
            "l2",
            {"epsilon": Epsilon("0.1"), "translation": 0.1},
            "norm l2 has no 'translation'; its limits are 'epsilon'",
        ),
        ("l1", {"epsilon": Epsilon("0.1"), "grid": 4}, "norm l1 has no 'grid'"),
        (
            "recolour",
            {"epsilon": Epsilon("0.1"), "rotation": 4.0},
            "has no 'rotation'; its limits are 'epsilon' and 'grid'",
        ),
        ("recolour", {"epsilon": Epsilon(2)}, "moves colours out of"),
        ("spatial", {"rotation": 181.0}, "less than or equal to 180"),
        ("spatial", {"translation": 1.5}, "less than or equal to 1"),
        ("recolour", {"epsilon": Epsilon("0.1"), "grid": 1}, "greater than or equal to 2"),
    ],
)
def test_limits_that_do_not_fit_the_norm_are_refused(kind: str, limits: dict[str, object], says: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=says):
        make_threat(ThreatKind(kind), **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "threat",
    [
        BALL,
        SPATIAL,
        SpatialThreat(rotation=7.5, translation=0),
        RECOLOUR,
        make_threat(ThreatKind.RECOLOUR, epsilon=Epsilon("1/9"), grid=16),
    ],
    ids=str,
)
def test_a_name_is_read_back(threat: Threat) -> None:
    assert read_threat(str(threat)) == threat
    assert read_threat(str(threat).replace("-", ":", 1)) == threat


def test_a_rotation_alone_is_a_name() -> None:
    assert read_threat("spatial-30deg") == SpatialThreat(rotation=30, translation=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "l3-1",
        "linf",
        "linf--1",
        "spatial",
        "spatial-0.1",
        "spatial-30deg-2",
        "recolour-2",
        "recolour-0.1-grid",
        "8/255",
    ],
)
def test_other_texts_are_no_threats(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        read_threat(text)
