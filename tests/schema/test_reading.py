from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.schema.errors import SpecError
from robusteval.schema.reading import MAX_BYTES, read_source
from robusteval.schema.source import Problem, SourceError


def parse(tmp_path: Path, text: str | bytes) -> object:
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_source(path, "s.yaml").value


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        ("-0.5", -0.5),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("8/255", "8/255"),
        ('"5"', "5"),
        ("~", None),
        ("", None),
        (".inf", float("inf")),
    ],
)
def test_scalars_are_read_by_the_rules_of_yaml_1_2(tmp_path: Path, written: str, read: object) -> None:
    value = parse(tmp_path, f"a: {written}\n")
    assert value == {"a": read}
    assert type(value["a"]) is type(read)  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a'; it is on line 1 already"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "duplicate key 'b'"),
        ("a: {b: 1, b: 2}\n", 1, "duplicate key 'b'"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: 1\nb: *nothing\n", 2, "not valid YAML"),
        ("a: 1\nb: \x00\n", 2, "not valid YAML"),
        (b"a: 1\nb: \xff\xfe\n", 2, "not UTF-8"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "is not allowed"),
        ("a: 1\nb: !mine {c: 1}\n", 2, "tag '!mine' is not allowed"),
        ("a: 1\nb: !!set {x}\n", 2, "is not allowed"),
        ("a: !!float abc\n", 1, "not a number"),
        ("a: &x\n  b: 1\n  c: *x\n", 1, "contains itself"),
        ("a: 1\n<<: {b: 2}\n", 2, "merge keys"),
        ("a: 1\n2: b\n", 2, "is not a string"),
        ("a: 1\n? [x]\n: b\n", 2, "is not a string"),
        ("%YAML 1.1\n---\na: no\n", 1, "YAML 1.2"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nested too deeply"),
        ("[" * 5000, 1, "nested too deeply"),
    ],
)
def test_what_is_not_yaml_is_one_problem_with_its_line(tmp_path: Path, text: str | bytes, line: int, says: str) -> None:
    with pytest.raises(SourceError, match=rf"^s\.yaml:{line}: ") as caught:
        parse(tmp_path, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SpecError)


def test_a_billion_laughs_are_refused_at_once(tmp_path: Path) -> None:
    levels = ['l0: &l0 ["lol"]'] + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(SourceError, match="stands for more than"):
        parse(tmp_path, "\n".join(levels))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="at most 1,000,000"):
        parse(tmp_path, "#" * (MAX_BYTES + 1))


@pytest.mark.parametrize("where", ["missing.yaml", "."])
def test_what_is_no_file_is_named(tmp_path: Path, where: str) -> None:
    with pytest.raises(SourceError, match=r"no such file|not a regular file"):
        read_source(tmp_path / where)


def test_every_value_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("a: 1\nb:\n  - c: 1\n    d: 2\n  - e\nf: &x {g: 1}\nh: *x\n")
    source = read_source(path)
    assert source.line(("b", 0, "d")) == 4
    assert source.line(("b", 1)) == 5
    assert source.line(("b", 1, "absent", 3)) == 5
    assert source.line(("h",)) == 7
    assert source.line(("zzz",)) == 1
    assert source.at(("b", 0, "d")) == 2
    assert source.at(("b", 7, "d")) is None


def test_an_alias_stands_for_a_copy(tmp_path: Path) -> None:
    assert parse(tmp_path, "a: &x {b: [1]}\nc: *x\n") == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_problems_are_sorted_and_the_first_speaks_for_all() -> None:
    error = SourceError("s.yaml", [Problem(9, "late"), Problem(2, "early\nand long"), Problem(9, "late")])
    assert str(error) == "s.yaml:2: early and long (and 1 more: robusteval validate s.yaml)"
    assert error.located() == ["s.yaml:2: early and long", "s.yaml:9: late"]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text("ab:-[]{}&*!#%'\"\n \t,?|>0", max_size=80))
def test_no_bytes_at_all_cause_anything_but_a_value_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes | str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    try:
        read_source(path)
    except SourceError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(f"{path}:")
