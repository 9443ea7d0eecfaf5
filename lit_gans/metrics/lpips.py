"""Learned perceptual image patch similarity, as torchmetrics computes it.

R. Zhang, P. Isola, A. Efros, E. Shechtman and O. Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018, arXiv:1801.03924.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from lit_gans.metrics.pictures import PictureMetric

__all__ = ("LPIPS",)

_BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


class LPIPS(PictureMetric):
    """Distance of pictures in the features of a network of ImageNet, averaged over pictures; lower is better.

    A thin layer around torchmetrics, whose package has the learned weights of the distance; those of the network are
    torchvision's, fetched once. Pictures are rounded to uint8 first, grey ones are shown as RGB.

    Args:
        backbone: ``alex`` (what papers report), ``vgg`` or ``squeeze``.
        crop: Width of the border that is left out.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: if there is no such ``backbone``; as ``PictureMetric``.
        FileNotFoundError: if the weights of the backbone are not on this machine and cannot be fetched.
    """

    higher_is_better = False

    def __init__(self, backbone: Literal["alex", "vgg", "squeeze"] = "alex", crop: int = 0, **kwargs: Any) -> None:
        super().__init__("rgb", crop, **kwargs)
        if backbone not in _BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(_BACKBONES)}, got {backbone!r}")
        try:
            network = LearnedPerceptualImagePatchSimilarity(backbone, reduction="sum")
        except (OSError, RuntimeError) as error:
            from torchvision.models import get_model_weights

            url = get_model_weights(_BACKBONES[backbone]).DEFAULT.url
            raise FileNotFoundError(
                f"LPIPS needs torchvision's weights of {_BACKBONES[backbone]}, which could not be had ({error}): put "
                f"{url} into {Path(torch.hub.get_dir(), 'checkpoints')}; PSNR and SSIM need no network"
            ) from error
        self.__dict__["network"] = network.eval()  # never a submodule
        self.network: LearnedPerceptualImagePatchSimilarity

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of the distances of all pictures, a scalar."""
        self.network.to(outputs.device)
        pair = [(x / 127.5 - 1).float().expand(-1, 3, -1, -1).clamp(-1, 1) for x in (outputs, targets)]
        with torch.no_grad():
            distance: Tensor = self.network(*pair).double()
        self.network.reset()
        return distance
