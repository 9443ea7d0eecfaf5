"""Protocols: all that a number depends on besides the generator, named, stamped on results, and compared."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lit_gans.errors import unknown
from lit_gans.metrics.images import RESIZES

__all__ = ("PROTOCOLS", "Protocol", "differences", "load_protocol", "stamp")

QUANTISER = "round(127.5 x + 127.5), clamped to 0..255"
"""What ``lit_gans.functional.to_uint8`` does."""
UNKNOWN = "unknown"
"""Of images that were made elsewhere: how they were sampled. It differs from nothing."""
INCIDENTAL = ("processes", "versions", "name")
"""Parts of a stamp in which results may differ and be compared all the same."""


@dataclass(frozen=True)
class Protocol:
    """How a generator is measured.

    Args:
        name: Name under which results cite this protocol; ``custom`` for one that was changed.
        split: Split of the data set: ``train``, ``val`` or ``test``.
        reals: Number of real images, the first of the split; None for all.
        mirror: Whether each real image counts a second time, flipped from left to right.
        fakes: Number of generated images.
        resize: How images are brought to the extractor's size, one of ``lit_gans.metrics.images.RESIZES``; None for
            the extractor's own way.
        ema: Whether the averaged generator is measured, where there is one.
        seed: Seed of the latents.
        truncation: ψ of the truncation trick; None for none.
        standing: Number of batches from which batch statistics are estimated anew before sampling (Brock et al. 2019,
            section 4.1); 0 keeps those of training.
        is_splits: Splits of the Inception score.
        kid_subsets: Subsets of the kernel distance.
        kid_subset_size: Images of each side in one.
        k: Neighbour that the balls of precision and recall reach.
        k_density: Neighbour that those of density and coverage reach.
        repeats: Times that all is measured, with latents of ``seed``, ``seed`` + 1, ...; means are reported.

    Raises:
        ValueError: if a value is out of its range.
    """

    name: str = "custom"
    split: str = "train"
    reals: int | None = None
    mirror: bool = False
    fakes: int = 50_000
    resize: str | None = None
    ema: bool = True
    seed: int = 0
    truncation: float | None = None
    standing: int = 0
    is_splits: int = 10
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    k: int = 3
    k_density: int = 5
    repeats: int = 1

    def __post_init__(self) -> None:
        least = {"reals": 2, "fakes": 2, "is_splits": 1, "kid_subsets": 1, "kid_subset_size": 2, "k": 1}
        for key, bound in {**least, "k_density": 1, "repeats": 1, "standing": 0}.items():
            value = getattr(self, key)
            if value is not None and value < bound:
                raise ValueError(f"{key} of a protocol must be at least {bound}, got {value}")
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"seed of a protocol must be in 0..2^62 - 1, got {self.seed}")
        if self.split not in ("train", "val", "test"):
            raise ValueError(f"split must be train, val or test, got {self.split!r}")
        if self.resize is not None and self.resize not in RESIZES:
            raise ValueError(f"resize must be one of {', '.join(RESIZES)}, got {self.resize!r}")

    def changed(self, **values: Any) -> "Protocol":
        """The same with other values, named ``custom`` if any does change."""
        other = replace(self, **values)
        return other if other == self else replace(other, name="custom")


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # as NVIDIA's StyleGAN2-ADA and R3GAN count: all training images, 50,000 samples, TensorFlow's resizing
        Protocol("fid50k_full", resize="tf1"),
        # StudioGAN 0.4: as many, Pillow's bilinear resizing, standing statistics
        Protocol("studiogan", resize="pil-bilinear", standing=256),
        # StudioGAN 0.3, DiffAugment: ten thousand of each, reals from the test split
        Protocol("fid10k_test", split="test", reals=10_000, fakes=10_000, resize="tf1"),
        # mimicry: 50,000 of each, three seeds
        Protocol("mimicry", reals=50_000, resize="tf1", repeats=3),
        # Clean-FID: Pillow's bicubic resizing
        Protocol("cleanfid", resize="pil-bicubic"),
        # to watch training by, in a tenth of the time
        Protocol("quick", fakes=5_000),
        # VEEGAN and PacGAN count modes: in 2,500 points, and in 26,000 stacked digits
        Protocol("modes_2500", fakes=2_500),
        Protocol("modes_26k", fakes=26_000),
    )
}
"""Presets under the field's names; each of them measures the averaged generator where there is one."""


def load_protocol(protocol: str | Protocol) -> Protocol:
    """A protocol by name, or itself.

    Raises:
        ValueError: if there is none of that name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(unknown("protocol", protocol, PROTOCOLS))
    return PROTOCOLS[protocol]


def stamp(
    protocol: Protocol, data: Mapping[str, Any], extractor: Mapping[str, Any], averaged: bool | None, processes: int
) -> dict[str, Any]:
    """All that a result depends on, as plain values.

    Args:
        protocol: The protocol that was followed.
        data: What the real images are.
        extractor: What looked at them, ``FeatureExtractor.describe()``.
        averaged: Whether the images are an averaged generator's; None for images that were made elsewhere.
        processes: Number of processes, which must not matter.
    """
    sampling = (
        dict.fromkeys(("ema", "seed", "truncation", "standing"), UNKNOWN) if averaged is None else {"ema": averaged}
    )
    return {
        **asdict(protocol),
        **sampling,
        "data": dict(data),
        "extractor": dict(extractor),
        "quantiser": QUANTISER,
        "versions": versions(),
        "processes": processes,
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that numbers pass through."""
    found = {"python": platform.python_version()}
    for library in ("lit-gans", "torch", "torch-fidelity", "numpy", "lightning"):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "unknown"
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields in which two stamps differ, nested ones by dotted names, with both values; incidental ones left out.

    Example:
        >>> differences({"fakes": 5, "data": {"split": "train"}}, {"fakes": 5, "data": {"split": "test"}})
        {'data.split': ('train', 'test')}
    """
    return {key: values for key, values in _differences(one, other).items() if key.partition(".")[0] not in INCIDENTAL}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*one, *(key for key in other if key not in one)]:
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= {f"{key}.{inner}": values for inner, values in _differences(a, b).items()}
        elif a != b and UNKNOWN not in (a, b):
            found[key] = (a, b)
    return found
