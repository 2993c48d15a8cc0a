"""The feature-statistics layers of AdvStyle and DSU.

AdvStyle: Y. Zhang, B. Deng, R. Li, K. Jia, L. Zhang, "Adversarial Style Augmentation for Domain Generalization",
arXiv 2301.12643 (2023). DSU: X. Li et al., "Uncertainty Modeling for Out-of-Distribution Generalization", ICLR 2022.

For feature maps z (B, C, H, W) with per-image channel mean mu and standard deviation sig, a layer returns
`(z - mu) / sig * sig' + mu'` with noisy statistics `mu' = mu + e * S_mu`, `sig' = sig + e' * S_sig`. In DSU the scales
S are the standard deviations of mu and sig over the batch; in AdvStyle they are learned by gradient ascent on the task
loss, which a gradient reversal turns into the descent step that the ordinary optimiser takes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Variant = Literal["a", "b", "dsu"]
Branch = Literal["identity", "adversarial", "dsu"]

VARIANCE_FLOOR = 1e-6
"""Added to every variance before its root."""

INITIAL_SCALE = 0.1
"""Value of the learned scales until the first adversarial branch sets them to the batch's own."""

BRANCHES: dict[Variant, tuple[tuple[float, Branch], ...]] = {
    "a": ((1 / 3, "identity"), (2 / 3, "adversarial"), (1.0, "dsu")),
    "b": ((1 / 2, "identity"), (1.0, "adversarial")),
    "dsu": ((1 / 2, "identity"), (1.0, "dsu")),
}
"""Upper ends of the intervals of a uniform draw that select each branch."""


class GradientReversal(torch.autograd.Function):
    """Identity forward; backward multiplies the gradient by `-weight`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: float) -> Tensor:
        """Pass `value` on."""
        ctx.weight = weight
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Reverse the gradient."""
        return -ctx.weight * gradients[0], None


class StyleLayer(nn.Module):
    """Perturb per-channel feature statistics in training; the identity in evaluation.

    The learned scales are buffers that ask for gradients: they are no model parameters, so no checkpoint and no
    optimiser picks them up by accident.

    Args:
        channels: C.
        variant: `a` draws identity, adversarial or DSU noise, one third each; `b` draws identity or adversarial noise
            along the normalised scales; `dsu` draws identity or DSU noise.
        adv_weight: factor of the reversed gradient.
        mix_weight: length of variant `b`'s scales, in units of the DSU scales.
        device: where the scales live.
    """

    sigma_mu: Tensor
    sigma_sig: Tensor
    initialised: Tensor

    def __init__(
        self,
        channels: int,
        *,
        variant: Variant = "a",
        adv_weight: float = 10.0,
        mix_weight: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.variant: Variant = variant
        self.adv_weight = adv_weight
        self.mix_weight = mix_weight
        self.noise = torch.Generator()
        shape = (1, channels, 1, 1)
        for name in ("sigma_mu", "sigma_sig"):
            scale = torch.full(shape, INITIAL_SCALE, device=device, requires_grad=True)
            self.register_buffer(name, scale)
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """The learned scales of the mean and of the standard deviation, (1, C, 1, 1) each."""
        return self.sigma_mu, self.sigma_sig

    def draw_branch(self) -> Branch:
        """One draw per forward pass, shared by the batch; on the host, so that no device is waited for."""
        u = float(torch.rand((), generator=self.noise))
        return next(branch for upper, branch in BRANCHES[self.variant] if u < upper)

    def forward(self, features: Tensor) -> Tensor:
        """Perturb the statistics of `features` (B, C, H, W); a batch of one has no batch statistics and passes."""
        if not self.training or features.shape[0] < 2:
            return features
        branch = self.draw_branch()
        return features if branch == "identity" else self.perturb(features, branch)

    def perturb(self, features: Tensor, branch: Branch) -> Tensor:
        """Apply the noise of one branch, `adversarial` or `dsu`; gradients flow through the statistics as well."""
        z = features.float()
        mu = z.mean(dim=(2, 3), keepdim=True)
        sig = (z.var(dim=(2, 3), keepdim=True) + VARIANCE_FLOOR).sqrt()
        scale_mu = (mu.var(dim=0, keepdim=True) + VARIANCE_FLOOR).sqrt()
        scale_sig = (sig.var(dim=0, keepdim=True) + VARIANCE_FLOOR).sqrt()
        if branch == "adversarial":
            scale_mu, scale_sig = self._adversarial_scales(scale_mu, scale_sig)
        noise = torch.randn((2, *mu.shape), generator=self.noise).to(z.device)
        styled = (z - mu) / sig * (sig + noise[1] * scale_sig) + (mu + noise[0] * scale_mu)
        return styled.to(features.dtype)

    def _adversarial_scales(self, batch_mu: Tensor, batch_sig: Tensor) -> tuple[Tensor, Tensor]:
        if not self.initialised:
            with torch.no_grad():
                self.sigma_mu.copy_(batch_mu)
                self.sigma_sig.copy_(batch_sig)
            self.initialised.fill_(True)
        reversed_mu: Tensor = GradientReversal.apply(self.sigma_mu, self.adv_weight)
        reversed_sig: Tensor = GradientReversal.apply(self.sigma_sig, self.adv_weight)
        if self.variant == "b":
            return self._directed(reversed_mu, batch_mu), self._directed(reversed_sig, batch_sig)
        return reversed_mu, reversed_sig

    def _directed(self, learned: Tensor, batch: Tensor) -> Tensor:
        """Keep only the direction of the learned scale; its length over the channels is the batch's."""
        length = torch.linalg.vector_norm(batch, dim=1, keepdim=True) * self.mix_weight
        directed: Tensor = learned / torch.linalg.vector_norm(learned, dim=1, keepdim=True).clamp_min(1e-12) * length
        return directed
