from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import map_coordinates

from robusteval.attacks.interpolation import interpolate


@pytest.mark.parametrize("sizes", [(7,), (5, 8), (3, 4, 5)])
def test_it_is_the_multilinear_interpolation_of_scipy(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    nodes = torch.rand(2, 3, *sizes, dtype=torch.float64, generator=generator)
    share = torch.rand(2, len(sizes), 40, dtype=torch.float64, generator=generator)
    places = share * (torch.tensor(sizes, dtype=torch.float64) - 1)[None, :, None]
    found = interpolate(nodes, places)
    axes = [np.arange(size) for size in sizes]
    for example in range(2):
        for channel in range(3):
            wanted = RegularGridInterpolator(axes, nodes[example, channel].numpy())(places[example].T.numpy())
            np.testing.assert_allclose(found[example, channel].numpy(), wanted, atol=1e-12)


def test_outside_the_grid_it_fades_to_zero() -> None:
    generator = torch.Generator().manual_seed(2)
    nodes = torch.rand(1, 1, 6, 6, dtype=torch.float64, generator=generator)
    places = torch.rand(1, 2, 200, dtype=torch.float64, generator=generator) * 12 - 3
    wanted = map_coordinates(nodes[0, 0].numpy(), places[0].numpy(), order=1, mode="grid-constant", cval=0.0)
    np.testing.assert_allclose(interpolate(nodes, places)[0, 0].numpy(), wanted, atol=1e-12)


def test_at_a_node_it_is_the_node_bit_for_bit() -> None:
    nodes = torch.rand(1, 2, 4, 5).double() * torch.tensor([1e-30, 1.0])[None, :, None, None].double()
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()])[None].double()
    assert torch.equal(interpolate(nodes, places), nodes.flatten(2))


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    nodes = torch.rand(2, 2, 4, 5, dtype=torch.float64, generator=generator).requires_grad_()
    places = (torch.rand(2, 2, 6, dtype=torch.float64, generator=generator) * 3 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(interpolate, (nodes, places))
