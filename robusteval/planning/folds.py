"""A suite over several splits of its domains into trained and shifted ones, as one suite a split."""

from __future__ import annotations

from dataclasses import replace

from robusteval.planning import targets
from robusteval.planning.loader import LoadedSuite
from robusteval.schema.types import JsonValue

WHOLE = ""
"""Name of the only fold of a suite without folds."""


def folds_of(suite: LoadedSuite) -> dict[str, LoadedSuite]:
    """Fold to the suite that trains and measures in it; a fold is named after the one domain that is apart.

    With `leave-one-out` that domain is held out, with `single-source` it is the only one that is trained on. A dataset
    that can keep whole domains for scoring is opened again for each fold, so that a held-out domain is scored as a
    whole.

    Raises:
        DataError: the dataset cannot be opened for a fold.
    """
    train = suite.spec.train
    if train.folds is None:
        return {WHOLE: suite}
    found = {}
    for apart in train.domains:
        others = tuple(name for name in train.domains if name != apart)
        trained, shifted = ((apart,), others) if train.folds == "single-source" else (others, (apart,))
        params: dict[str, JsonValue] = dict(train.data.params)
        fields = targets.params_of(targets.registry("dataset").load(train.data.name)).model_fields
        if "sources" in fields:
            params["sources"] = list(trained)
        data = train.data.model_copy(update={"params": params})
        evaluate = suite.spec.evaluate
        half = evaluate.ood.model_copy(update={"domains": shifted})
        spec = suite.spec.model_copy(
            update={
                "train": train.model_copy(update={"data": data, "domains": trained}),
                "evaluate": evaluate.model_copy(update={"ood": half}),
            }
        )
        found[apart] = replace(suite, spec=spec, dataset=targets.open_dataset(data))
    return found
