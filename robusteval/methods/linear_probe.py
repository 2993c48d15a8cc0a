"""Linear probing: multinomial logistic regression on frozen features, turned back into a linear head.

The protocol of Kumar et al., ICLR 2022, arXiv 2202.10054: features are normalised with one scalar mean and one scalar
standard deviation of all training entries; L2-regularised logistic regression is fitted by L-BFGS for a grid of C, each
fit starting from the one before; validation accuracy chooses.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robusteval.schema.errors import DataError

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """Features (N, d) float64 and labels (N,) of one data set."""

    values: Matrix
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """A fitted linear head on the original features.

    Attributes:
        weight: (K, d).
        bias: (K,).
        c: inverse regularisation that validation chose.
        accuracies: validation accuracy for every C of the grid.
    """

    weight: Matrix
    bias: Matrix
    c: float
    accuracies: tuple[float, ...]


def fit_probe(train: Features, validation: Features, *, classes: int, grid: Matrix, max_iter: int = 200) -> Probe:
    """Fit a head for every C of `grid`, in its order, and keep the first with the best validation accuracy.

    Args:
        train: features that are fitted.
        validation: features that choose C.
        classes: K, the number of classes of the head.
        grid: values of C, ascending.
        max_iter: L-BFGS iterations per value; the fit is used whether or not it has converged.

    Raises:
        DataError: a class has no training example.
    """
    # Planning loads this module for its parameters, and importing scikit-learn takes longer than planning.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    absent = sorted(set(range(classes)) - set(train.labels.tolist()))
    if absent:
        raise DataError(f"lp-ft: no training example of class {', '.join(map(str, absent))}; train on more examples")
    mean, std = float(train.values.mean()), float(train.values.std())
    std = std if std > 0 else 1.0
    scaled = (train.values - mean) / std
    model = LogisticRegression(solver="lbfgs", max_iter=max_iter, warm_start=True)
    best: tuple[float, Matrix, Matrix, float] | None = None
    accuracies = []
    for c in grid.tolist():
        model.set_params(C=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaled, train.labels)
        weight, bias = as_head(model.coef_, model.intercept_, mean=mean, std=std)
        predicted = (validation.values @ weight.T + bias).argmax(axis=1)
        accuracies.append(float((predicted == validation.labels).mean()))
        if best is None or accuracies[-1] > best[0]:
            best = (accuracies[-1], weight, bias, c)
    if best is None:
        raise ValueError("the grid of C is empty")
    return Probe(weight=best[1], bias=best[2], c=best[3], accuracies=tuple(accuracies))


def as_head(coefficients: Matrix, intercepts: Matrix, *, mean: float, std: float) -> tuple[Matrix, Matrix]:
    """Weights (K, d) and bias (K,) that act on features as the regression does on normalised ones.

    A binary regression has one row w; the softmax over (-w/2, w/2) is its sigmoid.
    """
    if len(coefficients) == 1:
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weight = coefficients / std
    return weight, intercepts - mean * weight.sum(axis=1)
