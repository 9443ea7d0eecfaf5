"""Derivatives of derivatives against finite differences."""

import pytest
import torch


def check_gradient_penalty(network, x, weight):
    """The gradient of the squared slope at ``x`` with respect to one weight, along a random direction, in float64."""

    def penalty():
        (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        return slope.square().sum()

    (analytic,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn_like(weight)
    with torch.no_grad():
        weight += 1e-6 * direction
    above = penalty().item()
    with torch.no_grad():
        weight -= 2e-6 * direction
    assert (analytic * direction).sum().item() == pytest.approx((above - penalty().item()) / 2e-6, rel=1e-3)
