"""Statistics of real images: computed once, by all processes together, and kept in a verified file."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_gans.files import aside
from lit_gans.metrics.classes import count_classes
from lit_gans.metrics.extractors import FeatureExtractor, Features
from lit_gans.metrics.feature_metric import FeatureMetric, rank_and_world
from lit_gans.metrics.frechet import Moments, add_outer_
from lit_gans.metrics.prdc import Manifold

__all__ = ("BLOCK", "RealImages", "Reference", "cache_folder", "real_statistics", "shard")

BLOCK = 64
"""Images that are drawn, or read, and looked at together, whatever the batch size and the number of processes."""


FORMAT = 1
"""Of the stored files; raised when their content or its computation changes."""


class RealImages(Protocol):
    """Images by their number."""

    def __len__(self) -> int:
        """How many."""
        ...

    def images(self, indices: Tensor) -> Tensor:
        """Those at ``indices``, int64 (N,), as uint8 (N, C, H, W)."""
        ...


@dataclass
class Reference:
    """What metrics need to know of the real images.

    Args:
        moments: Mean and covariance of the features.
        counts: As ``count_classes`` returns them; None without logits.
        features: Float32 (N, D), in the order of the images; None if they were not asked for.
    """

    moments: Moments
    counts: Tensor | None = None
    features: Tensor | None = None

    def to(self, device: torch.device) -> "Reference":
        """The same on another device."""
        if self.moments.mean.device == device:
            return self
        counts, features = (None if t is None else t.to(device) for t in (self.counts, self.features))
        return Reference(self.moments.to(device), counts, features)

    @cached_property
    def manifold(self) -> Manifold:
        """The features with the reach of their neighbours, which is found once."""
        assert self.features is not None
        return Manifold(self.features)


class RealStatistics(FeatureMetric):
    """Gathers what a ``Reference`` holds."""

    real_sum: Tensor
    real_outer: Tensor
    real_counts: Tensor
    real_features: list[Tensor]

    def __init__(self, extractor: FeatureExtractor, keep_features: bool) -> None:
        super().__init__(extractor)
        self.keep_features = keep_features
        width = extractor.num_features or 0
        self.add_state("real_sum", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("real_outer", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")
        classes = (extractor.num_classes or -1) + 1
        self.add_state("real_counts", torch.zeros(classes, dtype=torch.float64), dist_reduce_fx="sum")
        if keep_features:
            self.add_set("real_features", "real")

    def add(self, seen: Features, side: str) -> None:
        """Add to the sums, keep the features."""
        x = seen.features.double()
        self.real_sum += x.sum(0)
        add_outer_(self.real_outer, x)
        if seen.logits is not None:
            self.real_counts += count_classes(seen.logits)
        if self.keep_features:
            self.real_features.append(seen.features)

    def compute(self) -> Reference:
        """The statistics of all images."""
        n = self.need("real", 2, "for a covariance")
        return Reference(
            Moments.of_sums(n, self.real_sum, self.real_outer),
            self.real_counts if len(self.real_counts) else None,
            self.ordered("real_features", "real") if self.keep_features else None,
        )


def real_statistics(
    open_reals: Callable[[], RealImages],
    extractor: FeatureExtractor,
    identity: Mapping[str, Any] | None,
    mirror: bool = False,
    reals: int | None = None,
    keep_features: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[Iterable[int], str], Iterable[int]] = lambda blocks, title: blocks,
) -> Reference:
    """Statistics of real images, from the cache where it has them.

    Args:
        open_reals: Opens the images; called only if there is no cached file of theirs.
        extractor: The extractor whose features are summarised.
        identity: What tells these images from all others, as plain values; None to cache nothing.
        mirror: Count each a second time, flipped.
        reals: Number of images, the first ones; None for all.
        keep_features: Whether the features themselves are wanted.
        device: The device on which images are looked at.
        progress: Wraps the loop, to show how far it is.

    Raises:
        ValueError: if there are not so many images.
    """
    key = {
        "format": FORMAT,
        "reals": reals,
        "mirror": mirror,
        "data": dict(identity or {}),
        "extractor": extractor.describe(),
        "fingerprint": extractor.fingerprint((identity or {}).get("image_size", 32)),
    }
    stored = None if identity is None else StoredReference(key)
    found = None
    if stored and rank_and_world()[0] == 0:
        found = stored.load(keep_features)
    if rank_and_world()[1] > 1:  # one process decides, and reads, for all
        box = [found]
        torch.distributed.broadcast_object_list(box)
        found = box[0]
    if found is None:
        found = _compute(open_reals(), extractor, mirror, reals, keep_features, torch.device(device), progress)
        if stored and rank_and_world()[0] == 0:
            stored.save(found)
    return found


def _compute(
    images: RealImages,
    extractor: FeatureExtractor,
    mirror: bool,
    reals: int | None,
    keep_features: bool,
    device: torch.device,
    progress: Callable[[Iterable[int], str], Iterable[int]],
) -> Reference:
    n = len(images) if reals is None else reals
    if n > len(images):
        raise ValueError(f"the protocol asks for {n} real images, but the data has {len(images)}: choose another one")
    if extractor.num_features is None:
        extractor(images.images(torch.zeros(1, dtype=torch.int64)).to(device))
    statistics = RealStatistics(extractor, keep_features).to(device if device.type == "cuda" else "cpu")
    for block in progress(shard(2 * n if mirror else n), "real images"):
        index = torch.arange(block * BLOCK, min((block + 1) * BLOCK, 2 * n if mirror else n))
        batch = images.images(index % n).to(device)
        flipped = (index >= n).view(-1, 1, 1, 1).to(device)
        statistics.update(torch.where(flipped, batch.flip(3), batch) if mirror else batch, True, index)
    found: Reference = statistics.compute()
    return found


def shard(n: int) -> range:
    """The numbers of the blocks that this process looks at, of those that hold n images."""
    rank, world = rank_and_world()
    return range(rank, -(-n // BLOCK), world)


class StoredReference:
    """A reference in the cache: two safetensors files, sums and features, each with its key and a checksum.

    Args:
        key: All that the statistics depend on, as plain values.
    """

    def __init__(self, key: Mapping[str, Any]) -> None:
        self.key = json.dumps(key, sort_keys=True)
        data, extractor = key.get("data", {}), key.get("extractor", {})
        words = [data.get("dataset", "images"), data.get("split", ""), extractor.get("name", "")]
        digest = hashlib.sha256(self.key.encode()).hexdigest()[:16]
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join([*map(str, words), digest]))
        self.paths = {kind: cache_folder() / f"{name}.{kind}.safetensors" for kind in ("moments", "features")}

    def load(self, with_features: bool) -> Reference | None:
        """What is stored; None, with a warning if a file is broken, where it is not (all) there."""
        sums, features = self._read("moments"), self._read("features") if with_features else {}
        if sums is None or features is None:
            return None
        moments = Moments(int(sums["n"]), sums["mean"], sums["covariance"])
        return Reference(moments, sums.get("counts"), features.get("features"))

    def _read(self, kind: str) -> dict[str, Tensor] | None:
        path = self.paths[kind]
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            return self._distrust(path, str(error))
        if metadata.get("key") != self.key:
            return self._distrust(path, "it holds the statistics of other images")
        if metadata.get("checksum") != checksum(tensors):
            return self._distrust(path, "its checksum is wrong")
        return tensors

    @staticmethod
    def _distrust(path: Path, reason: str) -> None:
        warnings.warn(f"the cached statistics {path} are broken ({reason}): they are computed anew", stacklevel=2)

    def save(self, reference: Reference) -> None:
        """Write what is there; a folder that cannot be written to is a warning."""
        sums = {
            "n": torch.tensor(reference.moments.n),
            "mean": reference.moments.mean,
            "covariance": reference.moments.covariance,
        }
        if reference.counts is not None:
            sums["counts"] = reference.counts
        try:
            self._write("moments", sums)
            if reference.features is not None:
                self._write("features", {"features": reference.features})
        except OSError as error:
            warnings.warn(f"the statistics of the real images could not be kept for next time: {error}", stacklevel=2)

    def _write(self, kind: str, tensors: dict[str, Tensor]) -> None:
        path = self.paths[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        with aside(path, mark=f".{os.getpid()}") as partial:
            save_file(tensors, partial, metadata={"key": self.key, "checksum": checksum(tensors)})


def cache_folder() -> Path:
    """Where statistics are kept: ``$LIT_GANS_CACHE``, else ``lit_gans`` in the user's cache folder."""
    if given := os.environ.get("LIT_GANS_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lit_gans")


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
