from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robusteval.attacks.losses import (
    cross_entropy,
    dlr,
    negative_margin,
    targeted_dlr,
    targeted_margin,
    targeted_objective,
    untargeted_dlr_objective,
)

LOGITS = torch.tensor([[5.0, 3.0, 1.0, 0.0, -2.0], [1.0, 4.0, 2.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 0])
TARGETS = torch.tensor([1, 4])


def test_losses_have_the_values_worked_out_by_hand() -> None:
    assert torch.allclose(cross_entropy(LOGITS, LABELS)[1], torch.tensor(3.2002), atol=1e-4)
    assert torch.allclose(negative_margin(LOGITS, LABELS), torch.tensor([-2.0, 3.0]))
    assert torch.allclose(dlr(LOGITS, LABELS), torch.tensor([-2 / 4, 3 / 3]))
    assert torch.allclose(targeted_margin(LOGITS, LABELS, TARGETS), torch.tensor([-2.0, -1.0]))
    assert torch.allclose(targeted_dlr(LOGITS, LABELS, TARGETS), torch.tensor([-2 / 4.5, -1 / 3.5]))


def test_dlr_and_its_gradients_equal_the_references() -> None:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 10, generator=generator)
    labels = torch.randint(0, 10, (50,), generator=generator)
    targets = (labels + torch.randint(1, 10, (50,), generator=generator)) % 10
    library = APGDAttack(None, eps=0.1)
    library_targeted = APGDAttack_targeted(None, eps=0.1)
    library_targeted.y_target = targets
    pairs = [
        (lambda z: dlr(z, labels), lambda z: library.dlr_loss(z, labels)),
        (lambda z: targeted_dlr(z, labels, targets), lambda z: library_targeted.dlr_loss_targeted(z, labels)),
    ]
    for ours, theirs in pairs:
        values, gradients = [], []
        for loss in (ours, theirs):
            leaf = logits.clone().requires_grad_()
            value = loss(leaf)
            values.append(value.detach())
            gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
        assert torch.allclose(*values, atol=1e-6)
        assert torch.allclose(*gradients, atol=1e-5)


@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(0.01, 100),
    offset=st.floats(-50, 50),
    classes=st.integers(4, 12),
)
def test_dlr_changes_with_neither_scale_nor_offset_of_the_logits(seed, scale, offset, classes) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (6,), generator=generator)
    targets = (labels + 1) % classes
    moved = scale * logits + offset
    assert torch.allclose(dlr(moved, labels), dlr(logits, labels), atol=1e-6)
    assert torch.allclose(targeted_dlr(moved, labels, targets), targeted_dlr(logits, labels, targets), atol=1e-6)
    assert (dlr(logits, labels) >= -1 - 1e-9).all()
    assert torch.equal(dlr(logits, labels) > 0, logits.argmax(dim=1) != labels)


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_too_few_classes_fall_back_on_the_margin(classes) -> None:
    logits, labels = torch.randn(8, classes, generator=torch.Generator().manual_seed(1)), torch.arange(8) % classes
    targets = (labels + 1) % classes
    untargeted = dlr if classes >= 3 else negative_margin
    targeted = targeted_dlr if classes >= 4 else targeted_margin
    assert torch.equal(untargeted_dlr_objective(logits, labels), untargeted(logits, labels))
    assert torch.equal(targeted_objective(logits, labels, targets), targeted(logits, labels, targets))
    assert targeted_objective(logits, labels, targets).isfinite().all()
