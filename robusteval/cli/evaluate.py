"""The command that measures one model: eval."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from robusteval.cli.options import (
    DEFAULT_STORE,
    CellsOption,
    DeviceOption,
    JsonOption,
    MeanOption,
    StdOption,
    StoreOption,
    TableFormat,
    examples,
    roles_of,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        name="eval",
        epilog=examples(
            "robusteval eval model.safetensors --suite digits",
            "robusteval eval timm:resnet18 --suite ./my-suite.yaml --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
            "robusteval eval mypackage.models:load --suite digits --examples 100 --cells a_id,r_id",
            "robusteval eval robustbench:Wong2020Fast --suite cifar10 --device cuda",
        ),
    )(evaluate)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors checkpoint, timm:NAME, robustbench:ID, or MODULE:FACTORY: a function without "
            "arguments, in an importable module, that returns a network.",
            show_default=False,
        ),
    ],
    suite: Annotated[str, typer.Option(metavar="SUITE", help="Name of a packaged suite, or path of a YAML file.")],
    limit: Annotated[
        int | None,
        typer.Option("--examples", min=1, metavar="N", help="At most N examples a domain.", show_default=False),
    ] = None,
    cells: CellsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    value_range: Annotated[
        str, typer.Option(metavar="LOW,HIGH", help="What black and white are for the network.")
    ] = "0,1",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Row of the table.", show_default=False)] = None,
    check_input: Annotated[
        bool, typer.Option("--check-input/--no-check-input", help="Compare the preprocessing with the usual others.")
    ] = True,
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "auto",
    form: Annotated[TableFormat, typer.Option("--format", help="How the table is written.")] = TableFormat.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Measure one model on the cells of a suite and print its row.

    Results are stored under what identifies the model, so that nothing is measured twice.
    """
    from robusteval.cli.results import print_scores
    from robusteval.schema.registry import load_target

    declared = {"mean": numbers("mean", mean), "std": numbers("std", std)}
    ends = numbers("value-range", value_range)
    found = load_target("robusteval.api.evaluation:evaluate")(
        load_model(model),
        suite,
        n=limit,
        cells=roles_of(cells),
        store=store,
        device=device,
        name=name,
        check_input=check_input,
        value_range=tuple(ends or ()),
        **declared,
    )
    print_scores(found.scores, "json" if as_json else form.value)


def numbers(option: str, text: str | None) -> list[float] | None:
    """Numbers with commas between them.

    Raises:
        UsageError: they are something else.
    """
    from robusteval.schema.errors import UsageError

    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--{option} {text!r}: give numbers with commas between them") from None


def load_model(text: str) -> Any:
    """The model that a user names.

    Raises:
        UsageError: there is no such model.
    """
    from robusteval.schema.errors import UsageError

    if text.endswith(".safetensors"):
        return Path(text)
    scheme, colon, rest = text.partition(":")
    if not colon or not rest:
        raise UsageError(
            f"{text!r} names no model; give a .safetensors file, timm:NAME, robustbench:ID or MODULE:FACTORY"
        )
    if scheme == "timm":
        return _timm(rest)
    if scheme == "robustbench":
        return _robustbench(rest)
    return _from_factory(scheme, rest)


def _timm(name: str) -> Any:
    from robusteval.schema.errors import UnknownNameError, UsageError, unknown_name
    from robusteval.schema.registry import load_target

    timm = load_target("robusteval.models.bridges:import_timm")()
    if not timm.is_model(name.partition(".")[0]):
        raise UnknownNameError(unknown_name("timm model", name, timm.list_models(), listing="timm.list_models()"))
    try:
        return timm.create_model(name, pretrained=True).eval()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"timm:{name}: its weights cannot be had ({reason}); is the network reachable?") from error


def _robustbench(text: str) -> Any:
    from robusteval.schema.registry import load_target

    parts = text.split("/")
    name, dataset, threat = parts[-1], parts[0] if len(parts) > 1 else "cifar10", parts[1] if len(parts) > 2 else "Linf"
    load = load_target("robusteval.models.bridges:load_robustbench")
    return load(name, dataset, threat, folder=Path("robustbench-models"))


def _from_factory(module: str, attribute: str) -> Any:
    from robusteval.schema.errors import UsageError

    if "" not in sys.path:
        sys.path.insert(0, "")  # as with python -m: modules beside the user are importable
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # the module is there, and something that it imports is not
        raise UsageError(f"{module}:{attribute}: there is no module {error.name!r} here or installed") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{module}:{attribute}: module {module!r} has no {part!r}")
        found = getattr(found, part)
    if isinstance(found, type) or not hasattr(found, "forward"):
        return found()
    return found
