"""Commands that say what exists: ls, describe."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robusteval.cli import protocols
from robusteval.cli.options import DEFAULT_STORE, JsonOption, Listing, StoreOption, examples, open_store

if TYPE_CHECKING:
    from robusteval.schema.records import ResultRecord
    from robusteval.schema.specs import SuiteSpec
    from robusteval.store.store import Store

_FACTS = ("start", "revision", "domains", "classes", "image_shape", "absent")
"""What a description may hold besides text and parameters."""


_MEMBERS = {
    "timm/": "robusteval.models.timm_bridge:timm_models",
    "torchattacks/": "robusteval.attacks.torchattacks_bridge:torchattacks_names",
}
"""What lists the members of a family; they are imported only for a pattern that starts with its prefix."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        name="ls",
        epilog=examples(
            "robusteval ls suites",
            "robusteval ls methods --json",
            "robusteval ls attacks --match '*pgd*'",
            "robusteval ls attacks --match 'torchattacks/*'",
            "robusteval ls results --match 'rift*'",
        ),
    )(list_names)
    app.command(
        epilog=examples(
            "robusteval describe rift",
            "robusteval describe digits",
            "robusteval describe torchattacks/APGD --json",
        )
    )(describe)


def list_names(
    what: Annotated[Listing, typer.Argument(help="What to list.", show_default=False)],
    match: Annotated[str, typer.Option(metavar="GLOB", help="Only names that fit this shell pattern.")] = "*",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """List what exists, one line each."""
    from robusteval.cli import render
    from robusteval.cli.results import end_with_notes

    damaged: list[str] = []
    if what is Listing.SUITES:
        listed = [entry for entry in _suites() if fnmatchcase(entry["name"], match)]
    elif what is Listing.PROTOCOLS:
        listed = [entry for entry in protocols.listed() if fnmatchcase(entry["name"], match)]
    elif what is Listing.RESULTS:
        listed = [entry for entry in _results(store, damaged) if _fits(entry, match)]
    else:
        listed = [entry for entry in _registered(what.value, match) if fnmatchcase(entry["name"], match)]
    if as_json:
        print(json.dumps(listed, indent=2))
    else:
        header = list(listed[0]) if listed else []
        rows = [[_cell(name, value) for name, value in entry.items()] for entry in listed]
        render.print_table(header, rows, [] if rows else [_nothing(what, match, store)])
    end_with_notes(damaged)


def _nothing(what: Listing, match: str, store: str) -> str:
    """Why a listing is empty."""
    if what is not Listing.RESULTS:
        return f"no {what.value} match {match!r}"
    place = open_store(store)
    failed = sum(path.endswith(".json") for path in place.backend.paths("failures"))
    text = f"no results match {match!r}" if match != "*" else f"no results in {place.uri}"
    if failed:
        cells = "1 cell" if failed == 1 else f"{failed} cells"
        text += f"; {cells} failed, `robusteval run SUITE --resume failed` tries again"
    return text


def describe(
    name: Annotated[str, typer.Argument(help="Suite, method, attack, dataset, architecture, ...", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Say everything about one name.

    What it is, where it comes from, and every parameter with its default.
    """
    from robusteval.planning.targets import KINDS, registry
    from robusteval.schema.errors import UnknownNameError, unknown_name

    found = list(_descriptions(name))
    if not found:
        known = {entry["name"] for entry in _suites()} | set(protocols.names())
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


def _suites() -> Iterator[dict[str, Any]]:
    from robusteval.planning.loader import read_spec
    from robusteval.planning.names import packaged_suites

    for name in packaged_suites():
        spec: SuiteSpec = read_spec(name)
        yield {"name": name, "version": spec.version, "rows": len(spec.methods), "summary": spec.summary}


def _registered(plural: str, match: str) -> Iterator[dict[str, Any]]:
    from robusteval.planning.targets import registry
    from robusteval.schema.registry import load_target

    known = registry(plural.removesuffix("s"))
    for name, entry in known.entries().items():
        yield {"name": name, "summary": entry.summary}
    for prefix, entry in known.families().items():
        if match.startswith(prefix):
            members = load_target(_MEMBERS[prefix])() if prefix in _MEMBERS else ()
            yield from ({"name": prefix + name, "summary": entry.summary} for name in members)
        else:
            yield {"name": f"{prefix}...", "summary": entry.summary}


def _results(store: str, damaged: list[str]) -> Iterator[dict[str, Any]]:
    place = open_store(store)
    titles = _titles(place, damaged)
    for record in sorted(place.records(damaged), key=lambda one: (titles.get(one.cell_key, ""), one.cell_key)):
        yield {
            "key": record.cell_key,
            "title": titles.get(record.cell_key, _anonymous(record)),
            "result": _headline(record),
            "started_at": record.timing.started_at,
            "wall_s": record.timing.wall_s,
        }


def _titles(place: Store, damaged: list[str]) -> dict[str, str]:
    """What the stored plans call their cells."""
    titles: dict[str, str] = {}
    for plan in place.plans(damaged):
        for row in plan.rows:
            if row.train_key is not None:
                titles.setdefault(row.train_key, f"{plan.suite}: {row.label} seed {row.seed}: train")
            for role, key in row.cells.items():
                titles.setdefault(key, f"{plan.suite}: {row.label} seed {row.seed}: {role}")
    return titles


def _anonymous(record: ResultRecord) -> str:
    cell = record.cell
    return f"train {cell.method.name}" if cell.kind == "train" else f"eval {cell.evaluator.name}"


def _headline(record: ResultRecord) -> str:
    if record.evaluation is not None and record.evaluation.metrics:
        main = record.evaluation.metrics[0]
        return f"{main.name} {main.value:.4f} (n={main.n})"
    if record.training is not None:
        return f"weights {record.training.weights[:12]}, epoch {record.training.selected_epoch}"
    return record.status


def _fits(entry: dict[str, Any], match: str) -> bool:
    words = entry["title"].split(": ")
    return any(fnmatchcase(text, match) for text in (entry["key"], entry["title"], *words))


def _cell(name: str, value: Any) -> str:
    return str(value)[:12] if name == "key" else str(value)


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
