"""What an output pixel sees of the input, by the support of its gradient."""

import torch
from torch import nn

_LEFT_OUT = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.PReLU)


def bare(network):
    """Without norms and activations, with positive weights: no path from input to output is cut or cancels."""
    for parent in [*network.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, _LEFT_OUT):
                setattr(parent, name, nn.Identity())
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.1, 0.2)
    return network.double().eval()


def seen_by(call, x, row, column):
    """First and last row, first and last column of ``x`` on which the output at ``row``, ``column`` depends."""
    x = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(call(x)[0, :, row, column].sum(), x)
    seen = gradient[0].abs().amax(0)
    rows, columns = (seen.amax(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return rows[0], rows[-1], columns[0], columns[-1]


def radius_of(network, side, call=None, channels=None):
    """How far from its place any output pixel about the middle sees the input, along either axis."""
    period, farthest = network.stride * network.scale, 0
    middle = side * network.scale // 2 // period * period
    x = torch.full((1, channels or network.in_channels, side, side), 0.5)
    for phase in range(period):
        top, bottom, left, right = seen_by(call or network, x, middle + phase, middle + phase)
        place = (middle + phase) // network.scale
        assert top > 0, "the picture is too small to tell"
        assert bottom < side - 1, "the picture is too small to tell"
        farthest = max(farthest, place - top, bottom - place, place - left, right - place)
    return farthest
