"""The command that turns other people's weights into a checkpoint: import-weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robusteval.cli.options import examples, json_map


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        name="import-weights",
        epilog=examples(
            "robusteval import-weights net.pth --architecture resnet20 --classes 10 --image-size 32 \\\n"
            "    --mean 0.4914,0.4822,0.4465 --std 0.247,0.2435,0.2616 --rename fc=linear --out net.safetensors",
            'robusteval import-weights wrn.pt --architecture wide-resnet --params \'{"depth": 34, "width": 10}\' \\\n'
            "    --classes 10 --image-size 32 --entry state_dict --out wrn.safetensors",
        ),
    )(import_weights)


def import_weights(
    file: Annotated[Path, typer.Argument(help="A .safetensors, .pt or .pth file of weights.", show_default=False)],
    architecture: Annotated[str, typer.Option(metavar="NAME", help="Network (robusteval ls architectures).")],
    classes: Annotated[int, typer.Option(min=2, metavar="N", help="Number of classes.")],
    image_size: Annotated[int, typer.Option(min=1, metavar="PX", help="Side of the square input images.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to write, ending in .safetensors.")],
    params: Annotated[str, typer.Option(metavar="JSON", help="Parameters of the architecture.")] = "{}",
    channels: Annotated[int, typer.Option(min=1, metavar="N", help="Channels of the input images.")] = 3,
    mean: Annotated[
        str | None, typer.Option(metavar="M,M,M", help="Mean the network expects, on [0, 1]; 0 if absent.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S,S,S", help="Standard deviation, on [0, 1]; 1 if absent.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Replace a prefix of tensor names; may be repeated.")
    ] = None,
    strip: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Cut a prefix off tensor names; module. by default.")
    ] = None,
    entry: Annotated[str | None, typer.Option(metavar="NAME", help="State dict in a file of several things.")] = None,
    class_names: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Class names in label order, if they are known.")
    ] = None,
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Licence of the weights.")] = "",
    source: Annotated[str, typer.Option(metavar="TEXT", help="Where the weights come from.")] = "",
) -> None:
    """Turn weights that others trained into a checkpoint.

    A suite can start from the result. PyTorch files are read without running any code from them.
    """
    from robusteval.models.checkpoint_info import CheckpointInfo
    from robusteval.schema.errors import UsageError
    from robusteval.schema.params import checked_params
    from robusteval.schema.registry import load_target
    from robusteval.schema.types import Component
    from robusteval.store.atomic import write_atomically

    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: a checkpoint is a .safetensors file; give it that ending")
    fields = {
        "architecture": Component(name=architecture, params=json_map("--params", params)),
        "classes": classes,
        "class_names": tuple(class_names.split(",")) if class_names else None,
        "input_shape": (channels, image_size, image_size),
        "mean": _numbers("--mean", mean, channels, 0.0),
        "std": _numbers("--std", std, channels, 1.0),
        "licence": licence,
        "source": source,
    }
    info = checked_params("options", CheckpointInfo, fields)
    convert = load_target("robusteval.models.importing:import_weights")
    prefixes = tuple(strip) if strip else ("module.",)
    blob = convert(file, info, strip=prefixes, rename=_renames(rename or []), entry=entry)
    try:
        write_atomically(out, blob)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror or error}); give another file") from None
    print(f"wrote {out}: {architecture}, {classes} classes, {channels} x {image_size} x {image_size}")


def _numbers(option: str, text: str | None, count: int, default: float) -> tuple[float, ...]:
    from robusteval.schema.errors import UsageError

    if text is None:
        return (default,) * count
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise UsageError(f"{option} {text!r}: needs {count} numbers, separated by commas, one a channel")
    return values


def _renames(pairs: list[str]) -> dict[str, str]:
    from robusteval.schema.errors import UsageError

    renames: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not equals or not old:
            raise UsageError(f"--rename {pair!r}: is not OLD=NEW, such as fc=linear")
        renames[old] = new
    return renames
