"""LP-FT, linear probing then fine-tuning (Kumar et al., ICLR 2022, arXiv 2202.10054).

A fresh head on pretrained features distorts them while it is learned; a head that fits the features already does not.
So a linear probe gives the head, and only then the whole network is trained.

Choices: features are extracted without augmentation; the learning rate is the suite's (the paper sweeps it on
validation data), the epoch is chosen on validation data.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robusteval.data.batches import Batch, DeviceSet
from robusteval.methods.base import Method, MethodParams, TrainingRun
from robusteval.methods.linear_probe import Features, Probe, fit_probe
from robusteval.models.classifier import Classifier
from robusteval.models.heads import features, find_head
from robusteval.schema.errors import UsageError
from robusteval.schema.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

BATCH = 256
CACHE = "probe.safetensors"
"""Name of the fitted head in the cell's scratch space."""


class Params(MethodParams):
    """Hyper-parameters of LP-FT."""

    epochs: PositiveInt = 20
    """Epochs of fine-tuning."""
    lr: PositiveFloat = 1e-3
    """Learning rate of fine-tuning; the paper sweeps 3e-7 to 1e-2."""
    weight_decay: NonNegativeFloat = 0.0
    """None, so that nothing pulls the features away from the pretrained ones."""
    select: Literal["last", "best-validation", "leave-one-domain-out"] = "best-validation"
    """Which epoch is kept."""
    batch_norm: Literal["train", "frozen"] = "frozen"
    """`frozen` fine-tunes in evaluation mode, batch norm with its pretrained statistics and no dropout."""
    grid: NonNegativeInt = 50
    """Values of C, evenly spaced in the logarithm; 0 skips the probe, which is plain fine-tuning."""
    c_min: PositiveFloat = 1e-7
    """Smallest C (strongest regularisation)."""
    c_max: PositiveFloat = 1e2
    """Largest C."""
    max_iter: PositiveInt = 200
    """L-BFGS iterations for each C."""


class LinearProbeFineTune(Method[Params]):
    """Minimise the cross-entropy over all weights, starting with a head fitted to the pretrained features.

    A start model with another number of classes gets a new head.

    Cost: as ERM, and one forward pass over training and validation data; the probe runs on the CPU.
    """

    Params = Params
    start = "required"
    precisions = frozenset({"float32", "bfloat16"})
    replaces_head = True
    shares = (0.3, 0.0)

    def prepare(self, run: TrainingRun) -> None:
        """Fit the head and put it in place."""
        fit_classes(run.model, len(run.train.classes), seed=run.seed)
        if self.params.grid == 0:
            return
        probe = self.probe(run)
        _, head = find_head(run.model.network, run.model.classes)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(probe.weight))
            head.bias.copy_(torch.from_numpy(probe.bias))
        run.selected_on = "validation"
        run.diagnostics["probe_c"] = probe.c
        run.diagnostics["probe_validation_accuracy"] = max(probe.accuracies)

    def probe(self, run: TrainingRun) -> Probe:
        """The fitted head; the regression is kept in the scratch space, features are extracted again on resume."""
        run.progress(0.0, "features")
        train = extract_features(run.model, run.train)
        with run.selecting():
            validation = extract_features(run.model, run.validation)
        blob = run.scratch.get(CACHE) if run.scratch is not None else None
        if blob is not None:
            return decode_probe(blob)
        run.progress(0.1, "linear probe")
        grid = np.geomspace(self.params.c_min, self.params.c_max, self.params.grid)
        classes = len(run.train.classes)
        probe = fit_probe(train, validation, classes=classes, grid=grid, max_iter=self.params.max_iter)
        if run.scratch is not None:
            run.scratch.put(CACHE, encode_probe(probe))
        return probe

    def set_mode(self, model: Classifier) -> None:
        """Evaluation mode while training, unless batch norm is to adapt."""
        model.train(self.params.batch_norm == "train")

    def learning_rate(self, fraction: float) -> float | None:
        """The cosine is stepped once an epoch, down to 0 after the last one; without epochs it is the trainer's."""
        if self.params.schedule != "cosine" or self.params.iterations is not None:
            return None
        epoch = math.ceil(fraction * self.params.epochs - 1e-9) - 1
        return self.params.lr * (1.0 + math.cos(math.pi * epoch / self.params.epochs)) / 2.0

    def loss(self, model: Classifier, batch: Batch) -> Tensor:
        """Mean cross-entropy of the batch."""
        return cross_entropy(self.logits(model, batch.images), batch.labels)

    @classmethod
    def passes(cls, params: Any) -> tuple[float, float]:
        """Fine-tuning, and one forward pass for the features."""
        return 1.0 + (1.0 / params.epochs if params.grid else 0.0), 1.0


def fit_classes(model: Classifier, classes: int, *, seed: int) -> None:
    """Give the network a fresh head of `classes` outputs; one of that size already stays as it is.

    Raises:
        UsageError: the head has no bias, which the probe needs.
    """
    name, head = find_head(model.network, model.classes)
    if head.bias is None:
        raise UsageError(f"lp-ft: the head {name!r} has no bias; use an architecture whose last linear layer has one")
    if head.out_features == classes:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = nn.Linear(head.in_features, classes)
    parent, _, leaf = name.rpartition(".")
    setattr(model.network.get_submodule(parent), leaf, fresh.to(head.weight.device))
    model.classes = classes


@torch.no_grad()
def extract_features(model: Classifier, data: DeviceSet) -> Features:
    """Inputs of the head for every example of `data`, in evaluation mode and float32."""
    values = []
    with model.mode(training=False):
        for batch in data.in_order(BATCH):
            values.append(features(model, batch.images))
    return Features(
        values=torch.cat(values).cpu().numpy().astype(np.float64), labels=data.labels.cpu().numpy().astype(np.int64)
    )


def encode_probe(probe: Probe) -> bytes:
    """A probe as safetensors."""
    metadata = {"probe": json.dumps({"c": probe.c, "accuracies": probe.accuracies})}
    # safetensors writes the memory of an array as it lies, whatever its strides.
    tensors = {"weight": np.ascontiguousarray(probe.weight), "bias": np.ascontiguousarray(probe.bias)}
    blob: bytes = safetensors.numpy.save(tensors, metadata=metadata)
    return blob


def decode_probe(blob: bytes) -> Probe:
    """Inverse of `encode_probe`."""
    tensors = safetensors.numpy.load(blob)
    length = int.from_bytes(blob[:8], "little")
    about = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"]["probe"])
    return Probe(weight=tensors["weight"], bias=tensors["bias"], c=about["c"], accuracies=tuple(about["accuracies"]))
