"""A data loader whose order is a pure function of (seed, epoch), and which resumes in the middle of an epoch."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from lit_gans.data.sources import Source

Batch = tuple[Tensor, ...]


class ResumableLoader:
    """Batches of a source, in an order and with flips that depend on nothing but (seed, epoch).

    One pass over the loader is one epoch; the next ``iter`` is the next epoch. A pass that is left early starts again
    from its beginning, unless :meth:`load_state_dict` set the loader to the middle of an epoch. Nothing is drawn from
    the global random generators, and the batches are the same for every number of workers.

    It is deliberately no ``DataLoader``: Lightning then leaves its order alone, saves and restores its position, and
    announces each epoch through ``sampler.set_epoch``, which is this object's own :meth:`set_epoch`.

    Args:
        dataset: The images, and their labels if they have any.
        batch_size: Images per batch on this rank.
        shuffle: A new order in each epoch, and the same number of batches on all ranks, as training needs it. Otherwise
            the stored order, every image exactly once over all ranks, as evaluation needs it.
        flip: Mirror each image with probability 1/2, keyed by (seed, epoch, index).
        drop_last: Leave out an incomplete last batch; only with ``shuffle``.
        seed: Seed of order and flips, at least 0.
        rank: Number of this process among ``world``; the processes share each epoch without repeats.
        world: Number of processes that train together.
        num_workers: Processes that read ahead; 0 reads in this process.

    Raises:
        ValueError: If there is not one full batch for each rank.

    Example:
        >>> from lit_gans.data.sources import FakeImages
        >>> loader = ResumableLoader(FakeImages(10, channels=1, size=4, classes=3), batch_size=4)
        >>> [tuple(images.shape) for images, labels in loader]
        [(4, 1, 4, 4), (4, 1, 4, 4)]
        >>> loader.state_dict()
        {'epoch': 1, 'seen': 0}
    """

    def __init__(
        self,
        dataset: Source,
        batch_size: int = 64,
        shuffle: bool = True,
        flip: bool = False,
        drop_last: bool = True,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.flip = flip
        self.drop_last = drop_last and shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.num_workers = num_workers
        self.epoch = 0
        self.n_out = 0
        self.offset = self._next_offset = self._last_offset = 0
        self._resumed = False
        if self.drop_last and len(self) == 0:
            ranks = f" on each of {world} ranks" if world > 1 else ""
            raise ValueError(
                f"batch_size {batch_size}{ranks} is larger than the data set of {len(dataset)} images: "
                f"set batch_size to at most {max(1, len(dataset) // world)}, or drop_last=False"
            )

    batch_sampler = None
    """Lightning looks here too when it asks whether the order is fixed."""

    @property
    def sampler(self) -> Any:
        """What Lightning asks for ``set_epoch`` (shuffled), or recognises as a fixed order."""
        return self if self.shuffle else SequentialSampler(self.dataset)

    def _share(self) -> int:
        """Number of images that this rank sees in an epoch."""
        n = len(self.dataset)
        return n // self.world if self.shuffle else len(range(self.rank, n, self.world))

    def __len__(self) -> int:
        """Number of batches that this rank sees in an epoch."""
        share = self._share()
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One pass; as a generator, so that no epoch is fixed before the first batch is asked for."""
        start, self._resumed = (self.n_out if self._resumed else 0), False
        epoch, length = self.epoch, len(self)
        order, mirrored = self._plan(epoch)
        parts = order.split(self.batch_size)[start:length]
        for n, (part, images) in enumerate(zip(parts, self._read(parts, self._fetch(epoch)), strict=True), start + 1):
            batch = self._batch(images, part, mirrored)
            # counted before the batch leaves, as Lightning saves between two batches and never asks for one too many
            if n < length:
                self.epoch, self.n_out = epoch, n
            else:
                self.set_epoch(epoch + 1)
            yield batch

    def _plan(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """This rank's indices in ``epoch``, and for each image of the data set whether it is mirrored."""
        n = len(self.dataset)
        rng = np.random.default_rng((self.seed, epoch, self.offset) if self.offset else (self.seed, epoch))
        order = torch.from_numpy(rng.permutation(n)) if self.shuffle else torch.arange(n)
        mirrored = torch.from_numpy(rng.random(n) < 0.5) if self.flip else None
        return order[self.rank :: self.world][: self._share()], mirrored

    def _fetch(self, epoch: int) -> Callable[[Tensor], Any]:
        """What reads the samples at some indices, here or in workers."""
        return self.dataset.images

    def _read(self, parts: tuple[Tensor, ...], fetch: Callable[[Tensor], Any]) -> Iterator[Any]:
        """The samples of each part, read here or ahead by workers."""
        if self.num_workers == 0:
            return map(fetch, parts)
        reader = DataLoader(
            _Reader(fetch),
            batch_size=None,
            sampler=parts,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # else the workers' seed is drawn from the global generator
        )
        return iter(reader)

    def _batch(self, images: Any, indices: Tensor, mirrored: Tensor | None) -> Batch:
        """Mirror and scale images, add the labels; what is no image stays as it is."""
        batch = (
            images if images.is_floating_point() else scaled(images, None if mirrored is None else mirrored[indices])
        )
        return (batch,) if self.dataset.labels is None else (batch, self.dataset.labels[indices])

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one; naming the current one keeps the position, so that a resumed epoch goes on."""
        if epoch != self.epoch:
            self.epoch, self.n_out, self._resumed = epoch, 0, False
            self._last_offset, self.offset = self.offset, self._next_offset

    def reorder(self) -> None:
        """Have another order, and other flips, from the next epoch on, as if of another seed."""
        self._next_offset += 1

    def step_back(self) -> None:
        """Count the last batch as not given out, for a state that is saved before anything was done with it."""
        if self.n_out:
            self.n_out -= 1
        elif self.epoch:
            self.epoch, self.n_out, self.offset = self.epoch - 1, len(self) - 1, self._last_offset

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch, how many of its images all ranks together have seen, and reorderings if any."""
        position = {"epoch": self.epoch, "seen": self.n_out * self.batch_size * self.world}
        return position | ({"offset": self.offset, "next_offset": self._next_offset} if self._next_offset else {})

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on at a saved position: exactly, if the joint batch of all ranks divides the images seen."""
        self.epoch = state_dict["epoch"]
        self.n_out = min(state_dict["seen"] // (self.batch_size * self.world), len(self))
        self.offset, self._next_offset = state_dict.get("offset", 0), state_dict.get("next_offset", 0)
        self._resumed = True


def scaled(images: Tensor, mirrored: Tensor | None) -> Tensor:
    """Images uint8 as float32 in [-1, 1], those chosen mirrored.

    In numpy: torch spreads such small work over its thread pool, which waits whenever another process has a core.
    """
    pixels = images.numpy()
    if mirrored is not None:
        chosen = mirrored.numpy()
        pixels[chosen] = pixels[chosen][..., ::-1]
    floats = np.divide(pixels, np.float32(127.5), dtype=np.float32)
    floats -= 1
    return torch.from_numpy(floats)


class _Reader(Dataset[Any]):
    """A source as workers see it: one item is what is read for one batch, mostly images uint8 NCHW."""

    def __init__(self, fetch: Callable[[Tensor], Any]) -> None:
        self.fetch = fetch

    def __getitem__(self, indices: Tensor) -> Any:
        return self.fetch(indices)
