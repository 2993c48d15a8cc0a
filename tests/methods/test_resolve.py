from __future__ import annotations

import json

import pytest

from robusteval.methods import METHODS
from robusteval.methods.resolve import build_method, resolve_method
from robusteval.schema.errors import UnknownNameError, UsageError
from robusteval.schema.types import Component


def test_every_default_is_written_out():
    resolved = resolve_method("pgd-at", {"steps": 3})
    assert resolved.name == "pgd-at"
    assert set(resolved.params) == set(METHODS.load("pgd-at").Params.model_fields)
    assert resolved.params["steps"] == 3
    assert json.loads(json.dumps(resolved.params)) == resolved.params


def test_resolving_twice_changes_nothing():
    once = resolve_method("aft", {"epsilon": "16/510", "augment": [{"name": "flip"}]})
    assert resolve_method(once.name, once.params) == once


def test_equal_settings_written_differently_give_equal_components():
    assert resolve_method("pgd-at", {"epsilon": "16/510", "lr": 1}) == resolve_method(
        "pgd-at", {"epsilon": "8/255", "lr": 1.0}
    )


def test_a_built_method_has_the_parameters_of_its_component():
    method = build_method(resolve_method("sam", {"rho": 0.2, "adaptive": True}))
    assert (method.params.rho, method.params.adaptive) == (0.2, True)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epsilonn": 1}, "method 'pgd-at': unknown parameter 'epsilonn'; did you mean 'epsilon'"),
        ({"epochs": 0}, "method 'pgd-at': parameter 'epochs' is 0; Input should be greater than 0"),
        ({"epsilon": "8/0"}, "parameter 'epsilon' is '8/0'; epsilon '8/0' divides by zero"),
        ({"lr": float("nan")}, "parameter 'lr' is nan"),
        ({"batch_size": 1}, "parameter 'batch_size' is 1"),
        ({"schedule": "cosin"}, "parameter 'schedule' is 'cosin'"),
        ({"norm": "l2", "init": "nfgsm"}, "method 'pgd-at': init 'nfgsm' is defined for norm 'linf' only"),
    ],
)
def test_a_wrong_parameter_is_one_line_that_names_it(params, message):
    with pytest.raises(UsageError) as caught:
        resolve_method("pgd-at", params)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_methods_are_named_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown method 'pgd-ad'; did you mean 'pgd-at'"):
        resolve_method("pgd-ad", {})
    with pytest.raises(UnknownNameError):
        build_method(Component(name="nothing"))


def test_augmentations_are_resolved_too():
    short = resolve_method("erm", {"augment": ["flip"]})
    assert short.params["augment"] == [{"name": "flip", "params": {"p": 0.5}}]
    assert short == resolve_method("erm", {"augment": [{"name": "flip", "params": {"p": 0.5}}]})
    with pytest.raises(UnknownNameError, match="flop"):
        resolve_method("erm", {"augment": ["flop"]})
    with pytest.raises(UsageError, match="augmentation 'flip'"):
        resolve_method("erm", {"augment": [{"name": "flip", "params": {"p": 2}}]})


def test_a_precision_that_a_method_does_not_support_is_refused():
    with pytest.raises(UsageError, match="'precision'"):
        resolve_method("udim", {"precision": "bfloat16"})
