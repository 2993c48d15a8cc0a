"""Glass blur: pixels scattered among their neighbours between two Gaussian blurs (ICLR 2019 code of ImageNet-C).

The published loop visits the pixels of a frame in descending raster order and swaps each with a random neighbour, but
through views of one array: the pixel is overwritten and the neighbour keeps its value. A pass is therefore a chain of
copies. Pixel p gets what its neighbour q holds at that moment: q's original value if q is visited later or never, else
what q was given before. The chains depend on the draws alone, so they are resolved by doubling pointers, and a whole
pass becomes one gather that equals the loop bit for bit.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from robusteval.shifts.corruption import Corruption
from robusteval.shifts.draws import Draws, as_numbers
from robusteval.shifts.filters import Gaussian


class GlassBlur(Corruption):
    """Gaussian blur of deviation sigma, passes of copies from at most d pixels away, and the blur again."""

    name = "glass_blur"
    random = True

    @cached_property
    def _blur(self) -> Gaussian:
        return Gaussian(self.constants[0])

    def run(self, images: Tensor, draws: Draws) -> Tensor:
        """See `Shift.run`."""
        _, reach, passes = self.constants
        height, width = images.shape[2:]
        found: Tensor | None = None
        for number in range(passes):
            ranks = as_numbers(draws.halfwords((height, width), f"pass {number}"))
            sources = copy_sources(ranks.mul_((2 * reach) ** 2).bitwise_right_shift_(16), reach)
            found = sources if found is None else found.index_select(0, sources)
        assert found is not None
        smooth = self._blur(images).transpose(0, 1).flatten(1)
        scattered = smooth.gather(1, found.to(torch.int64).expand(len(smooth), -1))
        return self._blur(scattered.reshape(3, len(images), height, width).transpose(0, 1))


def copy_sources(choices: Tensor, reach: int) -> Tensor:
    """Where each pixel's value comes from after one pass.

    Args:
        choices: (B, H, W) int32 in [0, (2 reach)^2): row offset + reach times 2 reach, plus column offset + reach.
        reach: offsets lie in [-reach, reach).

    Returns:
        (B H W,) int32 positions in the flattened batch before the pass.
    """
    batch, height, width = choices.shape
    device = choices.device
    offsets = torch.arange(-reach, reach, dtype=torch.int32, device=device)
    steps = (offsets[:, None] * width + offsets[None, :]).flatten()
    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    visited = ((rows > reach) & (rows <= height - reach))[:, None] & (columns > reach) & (columns <= width - reach)
    own = torch.arange(batch * height * width, dtype=torch.int32, device=device)
    moves = steps.index_select(0, choices.flatten()).reshape(choices.shape).mul_(visited)
    target = moves.flatten().add_(own)
    # Visits run downwards: a neighbour further on in raster order was overwritten before it was read. Pixels outside
    # of the frame stay what they are, so a chain that reaches one ends there.
    following = torch.maximum(target, own)
    while True:
        further = following.index_select(0, following)
        if torch.equal(further, following):
            return target.index_select(0, following)
        following = further
