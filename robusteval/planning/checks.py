"""Everything about a suite that its types cannot say: names, parameters, data, starts, and what fits what."""

from __future__ import annotations

from robusteval.planning import targets
from robusteval.planning.checking import Checking, Findings
from robusteval.planning.measurement_checks import MeasurementChecks
from robusteval.planning.opening import anchored, opened
from robusteval.planning.protocols import with_protocol_data
from robusteval.planning.row_checks import RowChecks
from robusteval.schema.errors import unknown_name
from robusteval.schema.source import Loc, Source
from robusteval.schema.specs import ScoreSpec, TrainSpec
from robusteval.schema.types import Component


def check_suite(source: Source) -> Findings:
    """Check each part of a suite that is well formed by itself, so that one mistake does not hide another."""
    findings = Findings()
    frame, rows, measurements = (
        _FrameChecks(source, findings),
        RowChecks(source, findings),
        MeasurementChecks(source, findings),
    )
    frame.train()
    rows.methods()
    rows.starts()
    measurements.slices()
    measurements.threats()
    frame.scoring(rows)
    return findings


class _FrameChecks(Checking):
    """What all rows share: training data and architecture, seeds and scoring."""

    def train(self) -> None:
        """Dataset, domains and architecture."""
        spec = self.part(TrainSpec, "train")
        if spec is None:
            return
        where: Loc = ("train", "architecture")
        if self.component("architecture", spec.architecture, where):
            self.findings.architecture = self.attempt(where, lambda: targets.resolve_architecture(spec.architecture))
        if self.component("dataset", spec.data, ("train", "data")):
            data = self._data(spec)
            self.findings.data = self.attempt(("train", "data"), lambda: anchored(data, self.source.path))
        if (resolved := self.findings.data) is not None:
            self.findings.dataset = self.attempt(("train", "data"), lambda: opened(resolved))
        self.domains(spec.domains, ("train", "domains"), self.findings.dataset)
        dataset = self.findings.dataset
        if self.findings.architecture is not None and dataset is not None:
            side, smallest = min(dataset.image_shape[1:]), targets.smallest_image(self.findings.architecture)
            if side < smallest:
                text = f"{spec.architecture.name!r} takes images from {smallest} px up, the data has {side} px"
                self.say(where, text + "; choose another architecture or larger images")

    def _data(self, train: TrainSpec) -> Component:
        """The training dataset with what the suite's protocol says of it."""
        name = self.source.at(("protocol",))
        if not isinstance(name, str):
            return train.data
        protocol = self.attempt(("protocol",), lambda: targets.load_protocol(name))
        return train.data if protocol is None else with_protocol_data(train, protocol)

    def scoring(self, rows: RowChecks) -> None:
        """Seeds and scoring."""
        seeds = self.source.at(("seeds",))
        for index, seed in enumerate(seeds if isinstance(seeds, list) else ()):
            if seed in seeds[:index]:
                self.say(("seeds", index), f"seed {seed} is listed twice; keep one")
        score = self.part(ScoreSpec, "score")
        if score and score.baseline is not None and rows.known and score.baseline not in rows.rows:
            self.say(("score", "baseline"), unknown_name("baseline row", score.baseline, rows.rows))
