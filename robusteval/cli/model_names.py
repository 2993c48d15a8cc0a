"""Models that a user names for a leaderboard, where code of others runs only if the user says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robusteval.leaderboard.entries import Entry

PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".pickle")


def is_model(text: str) -> bool:
    """Whether a word names a model rather than a row of a suite."""
    return ":" in text or text.endswith((".safetensors", *PICKLES))


def named_model(text: str, *, trust_code: bool) -> Any:
    """The model that a user names: a .safetensors file, timm:NAME, robustbench:ID, or MODULE:FACTORY if trusted.

    Raises:
        UsageError: there is no such model, it is a pickle, or it is code that nobody said to trust.
    """
    from robusteval.cli.evaluate import load_model
    from robusteval.schema.errors import UsageError

    if text.endswith(PICKLES):
        raise UsageError(f"{text[:80]}: pickles run code when they are opened; save the weights as .safetensors")
    scheme = text.partition(":")[0]
    if not text.endswith(".safetensors") and scheme not in ("timm", "robustbench") and not trust_code:
        raise UsageError(f"{text[:80]}: runs code of module {scheme!r}; add --trust-code if you know it")
    return load_model(text)


def classifiers(
    texts: Sequence[str], entry: Entry, *, trust_code: bool, mean: str | None = None, std: str | None = None
) -> list[Any]:
    """The models that a user names, as classifiers for the data of an entry.

    Raises:
        UsageError: see `named_model`; or the preprocessing makes no sense.
    """
    from robusteval.cli.evaluate import numbers
    from robusteval.schema.registry import load_target

    if not texts or not entry.records:
        return []
    dataset = load_target("robusteval.data.slices:open_dataset")(entry.records[0].cell.data.dataset)
    preprocessing = load_target("robusteval.api.models:Preprocessing")(numbers("mean", mean), numbers("std", std))
    as_classifier = load_target("robusteval.api.models:as_classifier")
    return [
        as_classifier(
            named_model(text, trust_code=trust_code),
            classes=len(dataset.classes),
            input_shape=dataset.image_shape,
            preprocessing=preprocessing,
        )
        for text in texts
    ]
