"""Pictures as files have them, and as networks want them: grey or RGB, with or without transparency, 8 or 16 bits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_gans.functional import imresize

if TYPE_CHECKING:
    from lit_gans.commands.translation.tools import Tool

__all__ = ("Picture", "finished", "opened", "save")


class Picture(NamedTuple):
    """A picture that is read.

    Attributes:
        pixels: uint8, or uint16 of a grey picture of 16 bits, (C, H, W), with as many channels as the network wants.
        alpha: Opacity, uint8 (1, H, W), or None.
        grey: Whether the file is grey.
        profile: The colour profile of the file, or None.
        image: The picture itself, upright, grey or RGB of 8 bits, if it is to be kept.
    """

    pixels: Tensor
    alpha: Tensor | None
    grey: bool
    profile: bytes | None
    image: Image.Image | None


def opened(image: Image.Image, channels: int, keep: bool = False) -> Picture:
    """A picture as a network wants it.

    Args:
        image: The picture, already turned as its EXIF data says.
        channels: 1 for grey, 3 for RGB.
        keep: Whether the picture itself is wanted, too.

    Raises:
        ValueError: if it has 32 bits a pixel, whose range nobody knows.
    """
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel have no known range: save it with 8 or 16")
    deep = image.mode.startswith("I;16")
    grey = deep or image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data and not deep:
        image = image.convert("LA" if grey else "RGBA")
        alpha = tensor(image.getchannel("A"))
    if deep:
        pixels = torch.from_numpy(np.asarray(image).astype(np.uint16))[None]
    else:
        mode = "L" if grey or channels == 1 else "RGB"
        pixels = tensor(image if image.mode == mode else image.convert(mode))
    if len(pixels) < channels:
        pixels = pixels.expand(channels, -1, -1)
    kept = None
    if keep:
        kept = Image.fromarray(eight(pixels[:1])[0].numpy()) if deep else image.convert("L" if grey else "RGB")
    return Picture(pixels, alpha, grey, image.info.get("icc_profile"), kept)


def tensor(image: Image.Image) -> Tensor:
    """Pixels (C, H, W)."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def finished(picture: Picture, made: Tensor, tool: "Tool") -> Image.Image:
    """What is made of a picture, in the picture's mode; or the picture itself, of which what was made is the opacity.

    Args:
        picture: What the model was given, with its alpha and colour profile.
        made: Made of it, uint8 or uint16 (C, H, W).
        tool: The model that made it, which tells how many channels it was given.
    """
    if picture.image is not None:
        opacity = eight(made).float()
        if picture.alpha is not None:
            opacity = opacity * picture.alpha / 255
        return with_alpha(picture.image, opacity.round().to(torch.uint8))
    if picture.grey and tool.wanted == 3 and len(made) == 3:
        red, green, blue = made.unbind(0)
        grey = 0.299 * red.float() + 0.587 * green.float() + 0.114 * blue.float()
        made = grey.round().to(made.dtype)[None]
    if len(made) == 3:
        made = eight(made)
    array = made.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array[..., 0] if len(made) == 1 else array)
    if picture.alpha is None:
        return image
    scale = made.shape[-1] / picture.alpha.shape[-1]
    alpha = picture.alpha
    if scale != 1:
        alpha = (imresize(alpha / 255, scale) * 255).round().clamp(0, 255).to(torch.uint8)
    return with_alpha(image, alpha)


def eight(pixels: Tensor) -> Tensor:
    """Pixels of 8 bits."""
    return pixels if pixels.dtype == torch.uint8 else (pixels.float() / 257).round().to(torch.uint8)


def with_alpha(image: Image.Image, alpha: Tensor) -> Image.Image:
    """A picture with its opacity (1, H, W)."""
    image.putalpha(Image.fromarray(alpha[0].numpy()))
    return image


def save(image: Image.Image, path: Path, profile: bytes | None = None) -> None:
    """Write a picture in the format that its name tells.

    Raises:
        ValueError: if the format cannot hold it.
    """
    ending = path.suffix.lower()
    if ending != ".png" and image.mode.startswith("I;16"):
        raise ValueError(f"{ending} holds 8 bits, the picture has 16: name the output .png")
    if ending in (".jpg", ".jpeg") and image.mode in ("LA", "RGBA"):
        raise ValueError(f"{ending} holds no transparency: name the output .png or .webp")
    options: dict[str, Any] = {"lossless": True} if ending == ".webp" else {"quality": 95} if ending != ".png" else {}
    image.save(path, icc_profile=profile, **options)
