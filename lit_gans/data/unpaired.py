"""Pictures of two kinds without pairs, for models that learn to turn one kind into the other."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lit_gans.data.datamodule import DataSet, ImageDataModule, Split
from lit_gans.data.folders import Folder, share_of
from lit_gans.data.pairing import Unpaired, View
from lit_gans.data.pairs import PairData, ValView, check_dataset, made_of, pictures_of, several_sizes
from lit_gans.data.pictures import Made, Pictures, Resized, Some, resized
from lit_gans.data.sources import Source
from lit_gans.data.tasks import Task, parse_task

__all__ = ("UnpairedImageDataModule",)


class UnpairedImageDataModule(PairData):
    """Pictures of two kinds without pairs, for models that learn to turn one kind into the other.

    A batch is ``(source, target)``, pictures of side A and of side B that have nothing to do with one another, both
    float32 (N, C, H, W) in [-1, 1]. Side A is ``dataset`` and ``root``; side B is the same unless it is told what
    differs: another folder (``root_b``), another data set (``dataset_b``), other classes (``classes_a``,
    ``classes_b``), or a task that its pictures undergo (``task_b``). Where both sides would hold the same pictures,
    each gets its own half of them, so that nothing belongs together.

    An epoch shows every picture of the longer side once; which picture of the other side it meets is drawn for each
    epoch. Windows, mirroring and turns are drawn for each side by itself.

    Args:
        dataset: Of side A: ``folder``, or any data set of images of ``ImageDataModule``.
        root: Of ``folder``, a folder, a .zip or one single picture; else where the data set is or is downloaded to.
        dataset_b: The data set of side B, if it is another.
        root_b: The root of side B, if it is another.
        classes_a: The class, or the classes, that side A is made of, by number.
        classes_b: The class, or the classes, that side B is made of.
        task_a: What the pictures of side A undergo, as in ``PairedImageDataModule``.
        task_b: What the pictures of side B undergo; of each picture it makes the same always.
        val_root: Of ``folder``, where held-out pictures of side A are, if they have a folder of their own.
        val_root_b: The same of side B.
        held_out: Of ``folder``, how many pictures (whole number) or which share of them (less than 1) of each side is
            held out for validation: the last ones by name.
        epoch_length: Pairs in an epoch; None for the number of pictures of the longer side.
        image_size: Height and width of the windows that are trained on. None: whole pictures.
        load_size: First resize the shorter side of pictures to this (bicubic).
        val_view: What validation shows: the ``whole`` picture, the ``centre`` of ``image_size``, or ``fit``, the whole
            picture resized to ``image_size``. Whole pictures of several sizes come in batches of one.
        channels: Of side B: 1 for grey, 3 for RGB; None: as the pictures are.
        source_channels: Of side A; None: as the pictures are.
        batch_size: Pictures of each side per batch and process.
        num_workers: Processes that read ahead.
        flip: Mirror training pictures with probability 1/2.
        rotate: Turn training pictures by 0, 90, 180 or 270 degrees.
        limit: Use only the first so many pictures of each split, for trials.
        download: Fetch what is missing, where the data set can be fetched.
        in_memory: Hold decoded pictures in memory (true), or read them batch by batch (false). None: hold them if a
            split takes at most 1 GiB.
        seed: Seed of the order and of all that is drawn in training.
        drop_last: Leave out an incomplete last training batch.

    Raises:
        ValueError: If an argument is out of its range; in ``setup``, if the pictures cannot be trained on.
        FileNotFoundError: In ``setup``, if the data is missing.

    Example:
        >>> data = UnpairedImageDataModule("digits", task_b="invert", batch_size=32)
        >>> a, b = next(iter(data.train_dataloader()))
        >>> a.shape, b.shape
        (torch.Size([32, 1, 8, 8]), torch.Size([32, 1, 8, 8]))
        >>> bool(a.mean() < 0 < b.mean())
        True
    """

    def __init__(
        self,
        dataset: DataSet | str = "folder",
        root: str | Path = "data",
        dataset_b: DataSet | str | None = None,
        root_b: str | None = None,
        classes_a: int | list[int] | None = None,
        classes_b: int | list[int] | None = None,
        task_a: dict[str, Any] | list[Any] | str | None = None,
        task_b: dict[str, Any] | list[Any] | str | None = None,
        val_root: str | None = None,
        val_root_b: str | None = None,
        held_out: int | float = 0,
        epoch_length: int | None = None,
        image_size: int | None = None,
        load_size: int | None = None,
        val_view: ValView = "whole",
        channels: Literal[1, 3] | None = None,
        source_channels: Literal[1, 3] | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        flip: bool = False,
        rotate: bool = False,
        limit: int | None = None,
        download: bool = True,
        in_memory: bool | None = None,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__()
        root = str(root)
        self.save_hyperparameters(logger=False)
        self._take_arguments()
        self.epoch_length = epoch_length
        self._asked = (source_channels, channels)
        self._tasks = tuple(Task() if task is None else parse_task(task) for task in (task_a, task_b))
        self._sides: dict[Any, Any] = {}
        self._check_arguments()

    def _check_arguments(self) -> None:
        self._check_numbers()
        for dataset in (self.dataset, self._dataset_b):
            check_dataset(dataset)
        self._check_view()
        given = self.hparams
        differs = [given[name] is not None for name in ("dataset_b", "root_b", "classes_b", "task_b", "task_a")]
        if not any(differs):
            raise ValueError(
                "side B would be side A: say what differs by root_b (another folder), dataset_b (another data set), "
                "classes_a and classes_b, or task_b (what its pictures undergo)"
            )
        for name, task in zip(("task_a", "task_b"), self._tasks, strict=True):
            if task.mask is not None or task.scale != 1:
                raise ValueError(f"{name} {given[name]!r} makes no picture of the same size: it is for paired data")
        if self._folders != (True, True):
            for name in (name for name in ("val_root", "val_root_b", "held_out") if given[name]):
                raise ValueError(f"{name} is for dataset folder: data sets have a held-out part of their own")
        for name, folder in zip(("classes_a", "classes_b"), self._folders, strict=True):
            if folder and given[name] is not None:
                raise ValueError(f"{name} chooses classes of a data set by number; of a folder, name the class's own")
        if (given["val_root"] is None) != (given["val_root_b"] is None):
            raise ValueError("val_root and val_root_b go together: give both, or leave both out")
        if given["val_root"] is not None and self.held_out:
            raise ValueError("held-out pictures come from val_root, or are held_out of root: leave one of them out")
        if self.epoch_length is not None and self.epoch_length < 1:
            raise ValueError(f"epoch_length must be at least 1, not {self.epoch_length}")

    # what is there

    @property
    def _dataset_b(self) -> str:
        return self.hparams["dataset_b"] or ("folder" if self.hparams["root_b"] and self._is_folder else self.dataset)

    @property
    def _is_folder(self) -> bool:
        return self.dataset == "folder"

    @property
    def _folders(self) -> tuple[bool, bool]:
        return self._is_folder, self._dataset_b == "folder"

    @property
    def _root_b(self) -> Path:
        return Path(self.hparams["root_b"] or self.root).expanduser()

    @property
    def _same(self) -> bool:
        """Whether both sides are taken from the same pictures."""
        return (self.dataset, self.root) == (self._dataset_b, self._root_b)

    @cached_property
    def _folder(self) -> tuple[Folder | None, Folder | None]:
        """The folder of each side; None of a data set."""
        channels, names = self._asked, ("source_channels", "channels")
        roots = ((self.root, "root"), (self._root_b, "root_b"))
        first, second = (
            Folder(root, option, asked, name) if folder else None
            for (root, option), asked, name, folder in zip(roots, channels, names, self._folders, strict=True)
        )
        return first, first if self._same else second

    @cached_property
    def _val_folder(self) -> tuple[Folder, Folder] | None:
        if self.hparams["val_root"] is None:
            return None
        return (
            Folder(self.hparams["val_root"], "val_root", self.source_channels, "source_channels"),
            Folder(self.hparams["val_root_b"], "val_root_b", self.channels, "channels"),
        )

    @cached_property
    def _images(self) -> tuple[ImageDataModule | None, ImageDataModule | None]:
        """The data set of each side; None of a folder."""

        def opened(dataset: str, root: Path) -> ImageDataModule | None:
            if dataset == "folder":
                return None
            size = (self.load_size or self._image_size) if dataset == "celeba" else None
            limit = (
                None if self.hparams["classes_a"] is not None or self.hparams["classes_b"] is not None else self.limit
            )
            return ImageDataModule(
                dataset, root, image_size=size, limit=limit, download=self.download, in_memory=self.in_memory
            )

        first = opened(self.dataset, self.root)
        return first, first if self._same else opened(self._dataset_b, self._root_b)

    def prepare_data(self) -> None:
        """Fetch what is missing, once per machine."""
        for images in self._images:
            if images is not None:
                images.prepare_data()

    @property
    def channels(self) -> int:
        """Of side B: 1 for grey, 3 for RGB."""
        return self._channels_of(1)

    @property
    def source_channels(self) -> int:
        """Of side A: 1 for grey, 3 for RGB."""
        return self._channels_of(0)

    def _channels_of(self, n: int) -> int:
        images, folder = self._images[n], self._folder[n]
        if (asked := self._asked[n]) is not None:
            return asked
        own = images.channels if images is not None else folder.channels if folder is not None else 0
        return self._tasks[n].channels(own)

    @property
    def scale(self) -> int:
        """Both sides are of one size."""
        return 1

    @property
    def image_size(self) -> int:
        """Height and width in training: those asked for, else the shorter side of pictures of one size.

        Raises:
            ValueError: If pictures have several sizes.
        """
        if self._image_size is not None:
            return self._image_size
        sizes = set()
        for images, folder in zip(self._images, self._folder, strict=True):
            own = [(images.image_size,) * 2] if images is not None else []
            own += [(h.height, h.width) for h in folder.good.values()] if folder is not None else []
            sizes |= {resized(size, self.load_size) for size in own}
        if len(sizes) != 1:
            raise ValueError("the pictures of the two sides have several sizes: set image_size (--data.image_size)")
        return min(sizes.pop())

    # what is wrong

    def complaints(self) -> list[str]:
        """Why training would refuse the data, a sentence each, as far as can be told without decoding pictures."""
        folders = [folder for folder in dict.fromkeys(self._folder) if folder is not None]
        found = [sentence for folder in folders for sentence in self._wrong(folder)]
        for folder in self._val_folder or ():
            found += self._wrong(folder, held_out=True)
        if found:
            return found
        if self.source_channels != self.channels and self._asked == (None, None):
            found.append(
                f"side A has {self.source_channels} channels, side B {self.channels}: set source_channels and channels "
                "to 1 (grey) or 3 (RGB) to have pictures converted"
            )
        if self._same and self._is_folder and len(folders[0]) < 2:
            found.append(f"{self.root} holds one picture, and each side needs its own: add pictures, or give root_b")
        elif self.epoch_length is None and all(folder is not None and len(folder) == 1 for folder in self._folder):
            found.append("each side is one picture: set epoch_length to the number of windows that make an epoch")
        for folder in folders if self.held_out else ():
            share_of(len(folder), self.held_out)
        return found

    def _wrong(self, folder: Folder, held_out: bool = False) -> list[str]:
        found = folder.complaints()
        least, sizes = self._image_size, {(h.height, h.width) for h in folder.good.values()}
        if len(folder) == 1 and not folder.single and least is not None and not held_out and not self._same:
            found.append(
                f"{folder.root} holds one picture: add others, or name the file itself to train on windows of it"
            )
        if least is not None and (not held_out or self.val_view == "centre"):
            found += folder.too_small(least, self.load_size)
        if least is None and self.batch_size > 1 and len(sizes) > 1 and not held_out:
            found.append(several_sizes(folder, len(sizes)))
        return found

    def folders(self) -> list[Folder]:
        """The folders of both sides."""
        known = dict.fromkeys((*self._folder, *(self._val_folder or ())))
        return [folder for folder in known if folder is not None]

    # what is read

    def pairs(self, split: Split) -> Unpaired | None:
        """Pictures of both sides of a split as validation has them; None where there is no such split.

        The answer has a length, ``pair(i)``, a picture of A and one of B as uint8 (C, H, W), ``name(i)``,
        ``batch(indices)``, and ``sources`` and ``targets``, the pictures of A and of B, each with a length of its own.
        """
        fit = self.val_view == "fit"
        sides = self._read(split, fit=fit)
        return None if sides is None else Unpaired(*sides, View(None if self.val_view == "whole" else self._image_size))

    def _training_pairs(self) -> Unpaired:
        sides = self._read("train")
        assert sides is not None
        return Unpaired(*sides, View(self._image_size, self.flip, self.rotate), self.epoch_length)

    def _read(self, split: Split, fit: bool = False) -> tuple[Pictures, Pictures] | None:
        key = (split if "celeba" in (self.dataset, self._dataset_b) or split == "train" else "held out", fit)
        if key not in self._sides:
            opened = self._open(split)
            load_size = self._image_size if fit else self.load_size
            if opened is not None:
                sides = [self._side(side, n, load_size) for n, side in enumerate(opened)]
                self._sides[key] = tuple(self._place(*sides))
            else:
                self._sides[key] = None
        return self._sides[key]

    def _side(self, pictures: Pictures, n: int, load_size: int | None) -> Pictures:
        """Pictures of a side after resizing, its task and conversion."""
        pictures = Resized(pictures, load_size) if load_size else pictures
        task, channels = self._tasks[n], self._channels_of(n)
        if not task.steps and pictures.channels == channels:
            return pictures
        return Made(pictures, partial(made_of, task=task, channels=channels, side=n), channels, single=task.random)

    def _open(self, split: Split) -> tuple[Pictures, Pictures] | None:
        """The pictures of both sides before anything is done to them."""
        if split != "train" and self._val_folder is not None:
            held_out = [folder.pictures(range(len(folder))[: self.limit]) for folder in self._val_folder]
            return held_out[0], held_out[1]
        found: list[Pictures] = []
        numbers: list[list[int]] = []
        for n, classes in enumerate((self.hparams["classes_a"], self.hparams["classes_b"])):
            images, folder = self._images[n], self._folder[n]
            if folder is not None:
                count = len(folder) - share_of(len(folder), self.held_out)
                chosen = range(count) if split == "train" else range(count, len(folder))
                found.append(folder.pictures(range(len(folder))))
                numbers.append(list(chosen[: self.limit]))
            elif images is not None:
                if (source := images.source(split)) is None:
                    return None
                found.append(pictures_of(source))
                numbers.append(self._of_classes(source, classes, images)[: self.limit])
        if self._same:
            numbers = apart(*numbers)
        if not all(numbers):
            return None
        first, second = (
            pictures if len(chosen) == len(pictures) else Some(pictures, chosen)
            for pictures, chosen in zip(found, numbers, strict=True)
        )
        return first, second

    def _of_classes(self, source: Source, classes: int | list[int] | None, images: ImageDataModule) -> list[int]:
        """Numbers of the images of some classes."""
        if classes is None:
            return list(range(len(source)))
        wanted = [classes] if isinstance(classes, int) else classes
        if source.labels is None or not set(wanted) <= set(range(images.num_classes or 0)):
            known = f"classes 0..{images.num_classes - 1}" if images.num_classes else "no classes"
            raise ValueError(f"{images.dataset} has {known}: choose among them, not {classes}")
        return torch.isin(source.labels, torch.tensor(wanted)).nonzero().flatten().tolist()

    def describe(self, split: Split) -> dict[str, Any]:
        """What tells the pictures of a split from all others, as plain values; of folders, a hash of the files."""
        left_out = {"batch_size", "num_workers", "flip", "rotate", "download", "in_memory", "seed", "drop_last"}
        left_out |= {"root", "root_b", "val_root", "val_root_b", "epoch_length"}
        identity: dict[str, Any] = {name: value for name, value in self.hparams.items() if name not in left_out}
        identity["split"] = split
        folders = [*self._folder, *(self._val_folder or ())]
        return identity | {f"files_{n}": f.files.digest for n, f in enumerate(folders) if f is not None}


def apart(a: list[int], b: list[int]) -> list[list[int]]:
    """Two choices of the same pictures without what they share: each gets half of that, at random, always the same."""
    shared = np.intersect1d(a, b)
    if not len(shared):
        return [a, b]
    mixed = np.random.default_rng(len(shared)).permutation(shared)
    ours, theirs = set(mixed[: -(-len(mixed) // 2)].tolist()), set(mixed[-(-len(mixed) // 2) :].tolist())
    return [[i for i in a if i not in theirs], [i for i in b if i not in ours]]
