"""The command that says everything about one name: describe."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from robusteval.cli import protocols
from robusteval.cli.options import JsonOption, examples

_FACTS = ("start", "revision", "domains", "classes", "image_shape", "absent")
"""What a description may hold besides text and parameters."""


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "robusteval describe rift",
            "robusteval describe digits",
            "robusteval describe torchattacks/APGD --json",
        )
    )(describe)


def describe(
    name: Annotated[str, typer.Argument(help="Suite, method, attack, dataset, architecture, ...", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Say everything about one name.

    What it is, where it comes from, and every parameter with its default.
    """
    from robusteval.planning.names import packaged_suites
    from robusteval.planning.targets import KINDS, registry
    from robusteval.schema.errors import UnknownNameError, unknown_name

    found = list(_descriptions(name))
    if not found:
        known = set(packaged_suites()) | set(protocols.names())
        for kind in KINDS:
            known |= set(registry(kind).names())
        raise UnknownNameError(unknown_name("name", name, known, listing="robusteval ls methods"))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for number, entry in enumerate(found):
        if number:
            print()
        _print_description(entry)


def _descriptions(name: str) -> Iterator[dict[str, Any]]:
    from robusteval.planning.names import is_path, packaged_suites
    from robusteval.planning.targets import KINDS, registry

    if name in packaged_suites() or (is_path(name) and name.endswith((".yaml", ".yml"))):
        yield _describe_suite(name)
    for kind in KINDS:
        known = registry(kind)
        if name in known:
            yield _describe_registered(kind, name, known.load(name))

    if name in protocols.names():
        yield protocols.described(name)


def _describe_suite(name: str) -> dict[str, Any]:
    from robusteval.planning.loader import read_spec

    spec = read_spec(name)
    return {"kind": "suite", "name": spec.name, "text": spec.summary, "spec": spec.model_dump(mode="json")}


def _describe_registered(kind: str, name: str, target: Any) -> dict[str, Any]:
    fields = target.Params.model_fields
    parameters = [
        {
            "name": field,
            "default": None if info.is_required() else _plain(info.get_default(call_default_factory=True)),
            "required": info.is_required(),
            "type": _type_name(info.annotation),
            "text": " ".join((info.description or "").split()),
        }
        for field, info in fields.items()
    ]
    described: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "text": inspect.getdoc(target) or "",
        "parameters": parameters,
    }
    if kind in ("method", "shift"):
        described["source"] = inspect.getdoc(inspect.getmodule(target)) or ""
    if kind == "method":
        described["start"] = target.start
    if kind == "dataset" and not any(one["required"] for one in parameters):
        described |= _dataset_facts(target(target.Params()))
    return described


def _dataset_facts(dataset: Any) -> dict[str, Any]:
    """What an open dataset holds, or why it cannot be opened: it may not be on this disk."""
    from robusteval.schema.errors import DataError

    try:
        return {
            "domains": list(dataset.domains),
            "classes": list(dataset.classes),
            "image_shape": list(dataset.image_shape),
            "revision": dataset.revision,
        }
    except DataError as error:
        return {"absent": str(error)}


def _print_description(entry: dict[str, Any]) -> None:
    from robusteval.cli import render

    render.print_facts([], title=f"{entry['kind']} {entry['name']}")
    print("\n" + entry["text"] + "\n")
    if entry.get("source"):
        print(entry["source"] + "\n")
    facts = [(key, _words(entry[key])) for key in _FACTS if key in entry]
    if facts:
        render.print_facts(facts)
        print()
    if entry["kind"] == "protocol":
        protocols.print_described(entry)
        return
    if entry["kind"] == "suite":
        _print_suite(entry["spec"])
        return
    rows = [
        [one["name"], "required" if one["required"] else json.dumps(one["default"]), one["type"], one["text"]]
        for one in entry["parameters"]
    ]
    render.print_table(["parameter", "default", "type", "meaning"], rows, [] if rows else ["It has no parameters."])


def _print_suite(spec: dict[str, Any]) -> None:
    from robusteval.cli import render

    rows = [
        [row["label"] or row["method"], row["method"], row["start"] or "", _parameters(row["params"])]
        for row in spec["methods"]
    ]
    render.print_table(["row", "method", "start", "parameters"], rows)
    train, evaluate = spec["train"], spec["evaluate"]
    facts = [
        ("version", str(spec["version"])),
        ("seeds", ", ".join(map(str, spec["seeds"]))),
        ("data", f"{_component(train['data'])}, trained on {', '.join(train['domains'])}"),
        ("architecture", _component(train["architecture"])),
    ]
    for key, name in (("threats", "threat"), ("unseen_threats", "unseen threat")):
        for threat in evaluate[key]:
            attacks = ", ".join(_component(attack) for attack in threat["attacks"])
            facts.append((name, f"{_limits(threat)}: {attacks}"))
    for half in ("id", "ood"):
        chosen = {key: value for key, value in evaluate[half].items() if value is not None}
        facts.append((half, _parameters(chosen) or "all test examples of the default domains"))
    facts += [("reference", f"{one['title']} ({one['venue']})") for one in spec["references"]]
    print()
    render.print_facts(facts)


def _limits(threat: dict[str, Any]) -> str:
    """Norm and limits of a threat, such as `linf 8/255` or `spatial rotation 30 translation 0.1`."""
    names = ("rotation", "translation", "grid")
    given = [f"{name} {threat[name]:g}" for name in names if threat[name] is not None]
    return " ".join([threat["norm"], *([threat["epsilon"]] if threat["epsilon"] else []), *given])


def _component(component: dict[str, Any]) -> str:
    inner = _parameters(component["params"])
    return f"{component['name']} ({inner})" if inner else str(component["name"])


def _parameters(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_words(value)}" for name, value in params.items())


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(value: Any) -> Any:
    """A default as JSON."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str)


def _type_name(annotation: Any) -> str:
    """A type as a user would write it."""
    from typing import Literal, get_args, get_origin

    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(_plain(option)) for option in get_args(annotation))
    if origin is tuple:
        inner = list(dict.fromkeys(_type_name(one) for one in get_args(annotation) if one is not Ellipsis))
        return f"list of {' | '.join(inner)}"
    if origin is not None:
        parts = [_type_name(one) for one in get_args(annotation)]
        return " | ".join(dict.fromkeys(parts))
    words = {"NoneType": "none", "Any": "value", "Component": "component", "str": "text", "dict": "map"}
    name = str(getattr(annotation, "__name__", annotation))
    return words.get(name, name.lower())
