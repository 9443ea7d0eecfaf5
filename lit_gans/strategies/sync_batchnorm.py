"""Batch normalisation by the batch of all processes, on any device and differentiable as often as one likes."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ("BatchNormSync", "SyncBatchNorm")

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Sum(torch.autograd.Function):
    """Sum over all processes. Each of their losses depends on it, so the gradient is a sum over processes, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """One all-reduce."""
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The same again, so that it can be differentiated in turn."""
        return _Sum.apply(grad)


class SyncBatchNorm(_BatchNorm):
    r"""``nn.BatchNorm1d``, ``2d`` or ``3d`` whose mean and variance are those of the joint batch of all processes.

    With :math:`n_r, μ_r, σ_r^2` of each process's part, parts of any size,

    .. math:: μ = \sum_r n_r μ_r / n, \qquad σ^2 = \sum_r n_r (σ_r^2 + μ_r^2) / n - μ^2, \qquad n = \sum_r n_r

    While training, each forward pass is one collective that all processes must take part in, and so is each backward
    pass through it, also the second one of a gradient penalty. In eval mode and in a single process it is the batch
    norm of torch. Input (N, C, ...), output of the same shape; names in ``state_dict`` are those of ``nn.BatchNorm``.

    >>> SyncBatchNorm(3)(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"SyncBatchNorm expects an input (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel of ``input``."""
        joint = self.training or self.running_mean is None
        if not (joint and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        dims = [dim for dim in range(x.ndim) if dim != 1]
        variances, means = torch.var_mean(x, dims, correction=0)
        count = x.numel() // x.shape[1]
        # in double precision, where the difference below loses nothing
        variances, means = variances.double(), means.double()
        moments = count * torch.cat([means, variances + means.square(), means.new_ones(1)])
        sums: Tensor = _Sum.apply(moments)
        mean, square = (sums[:-1] / sums[-1].detach()).chunk(2)
        variance = square - mean.square()
        if self.training:
            self._track(mean.detach(), variance.detach(), sums[-1].detach())
        shape = [1, -1, *[1] * (x.ndim - 2)]
        scale = (variance + self.eps).rsqrt().to(x.dtype)
        y = (x - mean.to(x.dtype).view(shape)) * (scale if self.weight is None else scale * self.weight).view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of the joint batch, the variance without bias."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
            running.add_((now.to(running.dtype) - running) * share)


class BatchNormSync(LayerSync):
    """Makes each ``nn.BatchNorm1d``, ``2d`` and ``3d`` of a model a ``SyncBatchNorm``: ``Trainer(plugins=[...])``.

    Layers stay the objects they are, with all their parameters, buffers, hooks and modes; only their class changes. A
    subclass of these, whose ``forward`` may be its own, is left alone with a warning.

    >>> model = BatchNormSync().apply(nn.Sequential(nn.BatchNorm2d(3)))
    >>> type(model[0]).__name__, type(BatchNormSync().revert(model)[0]).__name__
    ('SyncBatchNorm', 'BatchNorm2d')
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model's layers in place, and return it."""
        for name, layer in model.named_modules():
            if type(layer) in _KINDS:
                layer._local_class = type(layer)
                layer.__class__ = SyncBatchNorm
            elif isinstance(layer, _KINDS):
                rank_zero_warn(
                    f"{name} ({type(layer).__name__}) normalises by each process's own images: only nn.BatchNorm1d, "
                    "2d and 3d themselves are synchronised, no subclasses"
                )
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Give the layers of ``apply`` their class back, in place, and return the model."""
        for layer in model.modules():
            if isinstance(layer, SyncBatchNorm) and hasattr(layer, "_local_class"):
                layer.__class__ = layer._local_class  # type: ignore[assignment]
                del layer._local_class
        return model
