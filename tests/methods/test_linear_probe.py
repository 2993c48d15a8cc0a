from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from robusteval.methods.linear_probe import Features, as_head, fit_probe
from robusteval.schema.errors import DataError


def clusters(classes, n=60, width=5, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % classes
    centres = np.random.default_rng(7).normal(size=(classes, width)) * 2 + 3
    return Features(values=centres[labels] + spread * rng.normal(size=(n, width)), labels=labels)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_head_gives_the_regressions_probabilities(classes):
    data = clusters(classes)
    mean, std = data.values.mean(), data.values.std()
    scaled = (data.values - mean) / std
    model = LogisticRegression(C=1.0).fit(scaled, data.labels)
    weight, bias = as_head(model.coef_, model.intercept_, mean=mean, std=std)
    assert weight.shape == (classes, 5)
    logits = data.values @ weight.T + bias
    if classes == 2:
        assert np.allclose(logits[:, 1] - logits[:, 0], model.decision_function(scaled), atol=1e-8)
        assert np.allclose(logits.sum(axis=1), 0, atol=1e-8)
    else:
        assert np.allclose(logits, model.decision_function(scaled), atol=1e-8)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(softmax, model.predict_proba(scaled), atol=1e-8)


def test_validation_chooses_c_and_the_strongest_regularisation_among_equals():
    train, validation = clusters(4), clusters(4, n=40, seed=1)
    grid = np.geomspace(1e-7, 1e2, 12)
    probe = fit_probe(train, validation, classes=4, grid=grid)
    best = max(probe.accuracies)
    assert probe.c == grid[probe.accuracies.index(best)]
    predicted = (validation.values @ probe.weight.T + probe.bias).argmax(axis=1)
    assert (predicted == validation.labels).mean() == best
    assert best > probe.accuracies[0]


def test_a_converged_fit_does_not_depend_on_the_warm_start():
    train, validation = clusters(3), clusters(3, n=30, seed=1)
    alone = fit_probe(train, validation, classes=3, grid=np.array([0.1]))
    after = fit_probe(train, validation, classes=3, grid=np.array([0.1, 0.1]))
    assert np.allclose(alone.weight, after.weight, atol=1e-2)


def test_an_unconverged_fit_is_used_without_a_warning():
    probe = fit_probe(clusters(4), clusters(4, seed=1), classes=4, grid=np.array([1e2]), max_iter=1)
    assert np.isfinite(probe.weight).all()


def test_shifting_and_scaling_all_features_leaves_the_logits():
    train, validation = clusters(3), clusters(3, n=30, seed=1)
    moved = [Features(values=10 * data.values - 4, labels=data.labels) for data in (train, validation)]
    grid = np.array([1e-2])
    first, second = fit_probe(train, validation, classes=3, grid=grid), fit_probe(*moved, classes=3, grid=grid)
    logits = validation.values @ first.weight.T + first.bias
    assert np.allclose(moved[1].values @ second.weight.T + second.bias, logits, atol=1e-6)


def test_constant_features_give_a_finite_head():
    flat = Features(values=np.full((8, 3), 2.0), labels=np.arange(8) % 2)
    probe = fit_probe(flat, flat, classes=2, grid=np.array([1.0]))
    assert np.isfinite(probe.weight).all()
    assert np.isfinite(probe.bias).all()


def test_a_class_without_training_examples_is_named():
    with pytest.raises(DataError, match="no training example of class 2, 3"):
        fit_probe(clusters(2), clusters(2), classes=4, grid=np.array([1.0]))
