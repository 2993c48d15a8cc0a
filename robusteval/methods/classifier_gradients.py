"""Per-example gradients of a linear classifier in closed form, and UDIM's inconsistency penalty on them.

For softmax cross-entropy behind a linear layer with weights W (K, d) and bias b, example i with features phi_i and
residual r_i = softmax(logits_i) - onehot(y_i) has the gradients r_i phi_i^T and r_i. They are outer products, so their
means, and the means of their squares, are matrix products over the batch: the B x K x (d + 1) tensor is never formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class ClassifierGradients:
    """Gradients of the cross-entropy of B examples by the classifier's weights and bias, as factors.

    Attributes:
        residuals: (B, K), softmax minus one-hot label.
        features: (B, d), input of the classifier.
        bias: whether the classifier has a bias, whose gradient is the residual.
    """

    residuals: Tensor
    features: Tensor
    bias: bool = True

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, features: Tensor, *, bias: bool = True) -> ClassifierGradients:
        """Gradients for `logits` (B, K), `labels` (B,) and `features` (B, d); the graph is kept."""
        targets = one_hot(labels, logits.shape[1]).to(logits.dtype)
        return cls(residuals=logits.softmax(dim=1) - targets, features=features, bias=bias)

    @property
    def extended(self) -> Tensor:
        """(B, d + 1): features and a one for the bias, or (B, d) without bias."""
        if not self.bias:
            return self.features
        return torch.cat([self.features, torch.ones_like(self.features[:, :1])], dim=1)

    def mean(self, weights: Tensor) -> Tensor:
        """(K, d + 1): weighted mean of the gradients; `weights` (B,) sum to one."""
        return (self.residuals * weights[:, None]).T @ self.extended

    def spread(self, weights: Tensor, centre: Tensor) -> Tensor:
        """(K, d + 1): weighted mean of the squared distances of the gradients from `centre`, elementwise."""
        squares = (self.residuals.square() * weights[:, None]).T @ self.extended.square()
        return squares - 2 * centre * self.mean(weights) + centre.square()

    def mean_squared_norms(self, weights: Tensor) -> Tensor:
        """Scalar: sum over weights and bias of the weighted mean squared gradient norm divided by their size."""
        classes, width = self.residuals.shape[1], self.features.shape[1]
        residual = self.residuals.square().sum(dim=1)
        per_example = residual * self.features.square().sum(dim=1) / (classes * width)
        if self.bias:
            per_example = per_example + residual / classes
        return (weights * per_example).sum()


def inconsistency(original: ClassifierGradients, perturbed: ClassifierGradients, weights: Tensor) -> Tensor:
    """UDIM's penalty of one domain block: Shin et al., ICLR 2024, as released.

    With gbar the mean gradient of the originals, v_o and v_s the elementwise variances of the gradients of both
    halves about gbar:  P = mean((v_o - v_s)^2) / 4 + sum over {W, b} of mean_i ||Gt_i||^2 / size.
    The first term is the squared distance of the two variances from their mean, averaged over the two groups.

    Args:
        original: gradients on the images.
        perturbed: gradients on the same images moved to the unknown domain.
        weights: (B,) weight of each example, summing to one over the block and zero outside it.
    """
    centre = original.mean(weights)
    distance = original.spread(weights, centre) - perturbed.spread(weights, centre)
    return distance.square().mean() / 4 + perturbed.mean_squared_norms(weights)


def domain_weights(domains: Tensor, count: int) -> Tensor:
    """(count, B): for every domain, equal weights summing to one over its examples; zeros for an absent one."""
    members = one_hot(domains, count).T.to(torch.float32)
    return members / members.sum(dim=1, keepdim=True).clamp_min(1.0)
