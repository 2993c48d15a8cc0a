"""DomainBed's table, computed from its run logs by its own rules (Gulrajani and Lopez-Paz, ICLR 2021).

Training-domain validation: of all hyper-parameter draws and checkpoints of one trial, the one with the best mean
accuracy on the validation parts of the training domains; reported is its accuracy on the large part of the test
domain. Only runs with a single test domain count. What DomainBed prints after +/- is the population standard deviation
over trials divided by the root of their number; the unbiased standard error and Student's t interval stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from robusteval.stats.intervals import t_interval


@dataclass(frozen=True)
class Checkpoint:
    """One line of a log.

    Attributes:
        dataset: name of the dataset.
        algorithm: name of the algorithm.
        test_envs: held-out domains by index.
        trial: seed of the trial.
        hparams: seed of the hyper-parameter draw; 0 stands for the defaults.
        step: step of training.
        accuracy: `env0_in`, `env0_out`, ... to accuracy in [0, 1].
    """

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial: int
    hparams: int
    step: int
    accuracy: Mapping[str, float] = field(repr=False)

    @property
    def validation(self) -> float:
        """Mean accuracy on the validation parts of the training domains."""
        own = [
            value
            for name, value in self.accuracy.items()
            if name.endswith("_out") and env_of(name) not in self.test_envs
        ]
        return math.fsum(own) / len(own)


@dataclass(frozen=True)
class Repeated:
    """A mean over trials with every error bar that is in use.

    Attributes:
        values: one a trial, in the order of trials.
        mean: their mean.
        printed_error: what DomainBed prints after +/-.
        standard_error: unbiased standard error; None for one trial.
        interval: Student's t 95 % interval of the mean, cut to [0, 1]; None for one trial.
    """

    values: tuple[float, ...]
    mean: float
    printed_error: float
    standard_error: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class AlgorithmRow:
    """One row of the table.

    Attributes:
        dataset: name of the dataset.
        algorithm: name of the algorithm.
        domains: test domain by index to its accuracy over trials.
        average: mean over test domains, repeated over trials that have all of them; None if no trial has.
        validation: mean validation accuracy of what was selected, over the same trials.
        selected: `(test domain, trial)` to the checkpoint that was selected.
        incomplete: trials that lack a test domain which others have.
    """

    dataset: str
    algorithm: str
    domains: Mapping[int, Repeated]
    average: Repeated | None
    validation: Repeated | None
    selected: Mapping[tuple[int, int], Checkpoint]
    incomplete: tuple[int, ...]


def env_of(name: str) -> int:
    """Index of the domain in `env3_out`."""
    return int(name.removeprefix("env").partition("_")[0])


def training_domain_table(lines: Iterable[Checkpoint]) -> list[AlgorithmRow]:
    """Select and average; rows come sorted by dataset and algorithm.

    Ties in validation accuracy go to the earlier line, as there.
    """
    best: dict[tuple[str, str], dict[tuple[int, int], Checkpoint]] = {}
    for line in lines:
        if len(line.test_envs) != 1:
            continue
        chosen = best.setdefault((line.dataset, line.algorithm), {})
        place = (line.test_envs[0], line.trial)
        if place not in chosen or line.validation > chosen[place].validation:
            chosen[place] = line
    return [_row(dataset, algorithm, chosen) for (dataset, algorithm), chosen in sorted(best.items())]


def repeated(values: Sequence[float]) -> Repeated:
    """Mean and error bars of at least one repetition."""
    sample = np.asarray(values, dtype=np.float64)
    interval = t_interval(list(values))
    return Repeated(
        values=tuple(float(value) for value in sample),
        mean=float(sample.mean()),
        printed_error=float(sample.std()) / math.sqrt(sample.size),
        standard_error=float(sample.std(ddof=1)) / math.sqrt(sample.size) if sample.size > 1 else None,
        interval=None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1])),
    )


def _row(dataset: str, algorithm: str, chosen: Mapping[tuple[int, int], Checkpoint]) -> AlgorithmRow:
    envs = sorted({env for env, _ in chosen})
    trials = sorted({trial for _, trial in chosen})
    tested = {place: line.accuracy[f"env{place[0]}_in"] for place, line in chosen.items()}
    domains = {env: repeated([tested[env, trial] for trial in trials if (env, trial) in tested]) for env in envs}
    whole = [trial for trial in trials if all((env, trial) in tested for env in envs)]
    means = [math.fsum(tested[env, trial] for env in envs) / len(envs) for trial in whole]
    checks = [math.fsum(chosen[env, trial].validation for env in envs) / len(envs) for trial in whole]
    return AlgorithmRow(
        dataset=dataset,
        algorithm=algorithm,
        domains=domains,
        average=repeated(means) if means else None,
        validation=repeated(checks) if checks else None,
        selected=dict(chosen),
        incomplete=tuple(trial for trial in trials if trial not in whole),
    )
