"""Pairs of pictures for models that turn one picture into another."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

from lightning import LightningDataModule
from torch import Tensor

from lit_gans.data.datamodule import MEMORY_LIMIT, DataSet, ImageDataModule, Split
from lit_gans.data.files import some
from lit_gans.data.folders import Folder, partners, share_of
from lit_gans.data.own import is_own
from lit_gans.data.pairing import TASK, Mattes, PairLoader, Pairs, View, draw_from
from lit_gans.data.pictures import (
    Halves,
    Made,
    Pictures,
    Resized,
    SourcePictures,
    Stored,
    decoded_bytes,
    in_order,
    resized,
    stored,
    with_channels,
)
from lit_gans.data.points import is_plane
from lit_gans.data.sources import ArrayImages, Source, spread
from lit_gans.data.tasks import Rotate, Task, parse_task
from lit_gans.errors import nearest

__all__ = ("PairData", "PairedImageDataModule")

Halving = Literal["left_to_right", "right_to_left"]
ValView = Literal["whole", "centre", "fit"]


class PairData(LightningDataModule):
    """What data modules of pairs share: splits, loaders, where pictures live. See those that derive from it."""

    num_classes = None
    """There are no labels."""

    def _take_arguments(self) -> None:
        """Make attributes of the saved arguments that all such modules have."""
        given = self.hparams
        self.dataset: str = given["dataset"]
        self.root = Path(given["root"]).expanduser()
        self.held_out: int | float = given["held_out"]
        self.load_size: int | None = given["load_size"]
        self.val_view: ValView = given["val_view"]
        self.batch_size: int = given["batch_size"]
        self.num_workers: int = given["num_workers"]
        self.flip: bool = given["flip"]
        self.rotate: bool = given["rotate"]
        self.limit: int | None = given["limit"]
        self.download: bool = given["download"]
        self.in_memory: bool | None = given["in_memory"]
        self.seed: int = given["seed"]
        self.drop_last: bool = given["drop_last"]
        self._image_size: int | None = given["image_size"]

    def _check_numbers(self) -> None:
        """Refuse what is out of range, whatever the files."""
        least = {"batch_size": 1, "image_size": 1, "limit": 1, "load_size": 1, "num_workers": 0, "seed": 0}
        for name, bound in {**least, "held_out": 0}.items():
            value = self.hparams.get(name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, not {value}")
        for name in ("channels", "source_channels"):
            if self.hparams.get(name) not in (None, 1, 3):
                raise ValueError(f"{name} must be 1 (grey) or 3 (RGB), not {self.hparams[name]}")
        size, load = self.hparams["image_size"], self.hparams["load_size"]
        if size is not None and load is not None and load < size:
            raise ValueError(f"load_size {load} is smaller than image_size {size}: windows are cut after resizing")

    def _check_view(self) -> None:
        if self.hparams["val_view"] not in get_args(ValView):
            raise ValueError(
                f"unknown val_view {self.hparams['val_view']!r}: {nearest(self.hparams['val_view'], get_args(ValView))}"
            )
        if self.hparams["val_view"] != "whole" and self.hparams["image_size"] is None:
            raise ValueError(f"val_view {self.hparams['val_view']} shows windows of image_size: give it")

    def setup(self, stage: str | None = None) -> None:
        """Read what ``stage`` (fit, validate, test; None for all) needs, and refuse what cannot be trained on."""
        for sentence in self.complaints():
            raise ValueError(sentence)
        if stage in (None, "fit"):
            self.train_dataloader()
        if stage in (None, "fit", "validate"):
            self.pairs("val")
        if stage in (None, "test"):
            self.pairs("test")

    def complaints(self) -> list[str]:
        """Why training would refuse the data, a sentence each, as far as can be told without decoding pictures."""
        raise NotImplementedError

    def folders(self) -> list[Folder]:
        """The folders that pictures come from."""
        raise NotImplementedError

    def pairs(self, split: Split) -> Any:
        """The pairs of a split as validation has them."""
        raise NotImplementedError

    def _training_pairs(self) -> Any:
        raise NotImplementedError

    def train_dataloader(self) -> PairLoader:
        """Training batches, in an order that follows from (seed, epoch), resumable within an epoch."""
        overfit = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        options = {"shuffle": not overfit, "drop_last": self.drop_last}
        return self._loader(self._training_pairs(), self.batch_size, augment=True, **options)

    def val_dataloader(self) -> PairLoader | list[PairLoader]:
        """Held-out pairs in their stored order, each exactly once; an empty list where there are none."""
        return self._held_out("val")

    def test_dataloader(self) -> PairLoader | list[PairLoader]:
        """Held-out pairs in their stored order, each exactly once; an empty list where there are none."""
        return self._held_out("test")

    def _held_out(self, split: Split) -> PairLoader | list[PairLoader]:
        pairs = self.pairs(split)
        if pairs is None:
            return []
        return self._loader(pairs, self.batch_size if pairs.one_size else 1, augment=False, shuffle=False)

    def _loader(self, pairs: Any, batch_size: int, **options: Any) -> PairLoader:
        return PairLoader(
            pairs,
            batch_size=batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world=self.trainer.world_size if self.trainer else 1,
            num_workers=self.num_workers,
            **options,
        )

    def _place(self, *sides: Pictures | None) -> list[Any]:
        """Decode into memory what fits, and look at a sample of what does not."""
        known = [side for side in sides if side is not None and not isinstance(side, Stored)]
        bytes_ = sum(map(decoded_bytes, known))
        if self.in_memory if self.in_memory is not None else bytes_ <= MEMORY_LIMIT:
            return [side if side is None else stored(side) for side in sides]
        for side in known:
            if not isinstance(side, Made):
                in_order(lambda i, side=side: side.picture(i).shape, spread(len(side)))
        return list(sides)


class PairedImageDataModule(PairData):
    """Pairs of pictures that belong together, for models that learn from examples of what to make of a picture.

    A batch is ``(source, target)``, both float32 (N, C, H, W) in [-1, 1]: what the model is given, and what it is to
    make of it. The pairs are

    - two folders or zips, ``source_root`` and ``root``, whose files match by name; or
    - pictures in one folder that hold both, ``side_by_side``; or
    - the pictures of any data set as targets, and a ``task`` that makes the sources of them.

    Windows, mirroring and quarter turns are drawn once for both; where the target is larger than its source by a scale,
    windows begin at multiples of it. All that is drawn depends on nothing but (seed, epoch, number of the pair).

    Args:
        dataset: ``folder``, or any data set of images of ``ImageDataModule``: its images are the targets of ``task``.
        root: Of ``folder``, the folder or .zip of the targets, or of the pictures with both side by side; else where
            the data set is or is downloaded to.
        source_root: The folder or .zip of the sources; a source and its target have the same name, up to the ending.
        side_by_side: Each picture holds both halves of a pair: ``left_to_right`` if the source is on the left,
            ``right_to_left`` if it is on the right.
        task: What makes sources of targets: a name, ``{name: parameters}``, or a list of these, applied in order.
        val_root: Of ``folder``, where held-out targets are, if they have a folder of their own.
        val_source_root: The folder of their sources.
        held_out: Of ``folder``, how many pairs (whole number) or which share of them (less than 1) is held out for
            validation: the last ones by name.
        image_size: Height and width of the window of the target that is trained on. None: whole pictures.
        load_size: First resize the shorter side of targets to this (bicubic), and sources accordingly.
        val_view: What validation shows: the ``whole`` picture, the ``centre`` of ``image_size``, or ``fit``, the whole
            picture resized to ``image_size``. Whole pictures of several sizes come in batches of one.
        channels: Of the target: 1 for grey, 3 for RGB; None: as the pictures are.
        source_channels: Of the source, without the mask; None: as the pictures are, or as the task makes them.
        batch_size: Pairs per batch and process.
        num_workers: Processes that read ahead.
        flip: Mirror training pairs with probability 1/2.
        rotate: Turn training pairs by 0, 90, 180 or 270 degrees.
        limit: Use only the first so many pairs of each split, for trials.
        download: Fetch what is missing, where the data set can be fetched.
        in_memory: Hold decoded pictures in memory (true), or read them batch by batch (false). None: hold them if a
            split takes at most 1 GiB.
        seed: Seed of the order and of all that is drawn in training; what validation draws is the same for all seeds.
        drop_last: Leave out an incomplete last training batch.

    Raises:
        ValueError: If an argument is out of its range; in ``setup``, if the pairs cannot be trained on.
        FileNotFoundError: In ``setup``, if the data is missing.

    Example:
        >>> data = PairedImageDataModule("digits", task={"downscale": 2}, batch_size=32)
        >>> source, target = next(iter(data.train_dataloader()))
        >>> source.shape, target.shape, data.scale
        (torch.Size([32, 1, 4, 4]), torch.Size([32, 1, 8, 8]), 2)
    """

    def __init__(
        self,
        dataset: DataSet | str = "folder",
        root: str | Path = "data",
        source_root: str | None = None,
        side_by_side: Halving | None = None,
        task: dict[str, Any] | list[Any] | str | None = None,
        val_root: str | None = None,
        val_source_root: str | None = None,
        held_out: int | float = 0,
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
        self.source_root = source_root
        self.side_by_side = side_by_side
        self.val_root = val_root
        self.val_source_root = val_source_root
        self._channels = channels
        self._source_channels = source_channels
        self.task = Task() if task is None else parse_task(task)
        self._bases: dict[Any, Any] = {}
        self._check_arguments()

    def _check_arguments(self) -> None:
        self._check_numbers()
        check_dataset(self.dataset)
        ways = {"source_root": self.source_root, "side_by_side": self.side_by_side, "task": self.hparams["task"]}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            mend = f"leave out all but one of {', '.join(given)}" if given else "give one"
            raise ValueError(
                "sources come from one of source_root (a folder of them), side_by_side (halves of each picture) or "
                f"task (made of the targets): {mend}"
            )
        if self.side_by_side not in (None, *get_args(Halving)):
            raise ValueError(
                f"unknown side_by_side {self.side_by_side!r}: {nearest(self.side_by_side, get_args(Halving))}"
            )
        self._check_view()
        if self.dataset != "folder":
            alone = ("source_root", "side_by_side", "val_root", "val_source_root", "held_out")
            for name in (name for name in alone if self.hparams[name]):
                raise ValueError(f"{name} is for dataset folder: {self.dataset} has targets alone; leave it out")
        if (self.val_root is None) != (self.val_source_root is None) and self.source_root is not None:
            raise ValueError("val_root and val_source_root go together: give both, or leave both out")
        if self.val_root is not None and self.held_out:
            raise ValueError("held-out pairs come from val_root, or are held_out of root: leave one of them out")
        if self._image_size is not None and self._image_size % self.task.scale:
            raise ValueError(indivisible(self._image_size, self.task.scale))
        if any(isinstance(step, Rotate) for step in self.task.steps):
            raise ValueError("rotate as a task is for unpaired pictures: what is turned does not lie on its target")
        if self.task.matte is not None:
            if self._channels == 3:
                raise ValueError("the target of matte is an opacity of one channel: leave channels out")
            if self.task.matte.backgrounds is not None and self.dataset != "folder":
                raise ValueError(f"backgrounds are for cut-outs of a folder, {self.dataset} has none: leave them out")
        matched = [files for files in (self.task.mask.files if self.task.mask else []) if files.match]
        if matched and (self.load_size is not None or self.val_view == "fit" or self.dataset != "folder"):
            raise ValueError(
                "masks that match by name are for pictures of a folder as they are: leave out load_size, val_view fit"
            )

    # what is there

    @cached_property
    def _targets(self) -> Folder:
        return Folder(self.root, "root", self._channels if self.task.matte is None else 3)

    @cached_property
    def _backgrounds(self) -> Folder | None:
        """What cut-outs are laid over."""
        if self.task.matte is None or self.task.matte.backgrounds is None:
            return None
        return Folder(self.task.matte.backgrounds, "task.matte.backgrounds", 3)

    @cached_property
    def _sources(self) -> Folder | None:
        if self.source_root is None:
            return None
        return Folder(self.source_root, "source_root", self._source_channels, "source_channels")

    @cached_property
    def _val_targets(self) -> Folder | None:
        channels = self.channels if self.task.matte is None else 3
        return None if self.val_root is None else Folder(self.val_root, "val_root", channels)

    @cached_property
    def _val_sources(self) -> Folder | None:
        if self.val_source_root is None:
            return None
        return Folder(self.val_source_root, "val_source_root", self.source_channels, "source_channels")

    @cached_property
    def _images(self) -> ImageDataModule:
        """Targets that are no folder."""
        size = (self.load_size or self._image_size) if self.dataset == "celeba" else None
        return ImageDataModule(
            self.dataset,
            self.root,
            image_size=size,
            limit=self.limit,
            download=self.download,
            in_memory=self.in_memory,
        )

    def prepare_data(self) -> None:
        """Fetch what is missing, once per machine."""
        if self.dataset != "folder":
            self._images.prepare_data()

    @property
    def channels(self) -> int:
        """Of the target: 1 for grey, 3 for RGB."""
        if self.task.matte is not None:
            return 1
        if self._channels is not None:
            return self._channels
        return self._targets.channels if self.dataset == "folder" else self._images.channels

    @property
    def source_channels(self) -> int:
        """Of the source as a batch has it, with the mask where there is one."""
        return self._plain_channels + (self.task.mask is not None)

    @property
    def _plain_channels(self) -> int:
        if self._source_channels is not None:
            return self._source_channels
        if self._sources is not None:
            return self._sources.channels
        if self.task.matte is not None:
            return 3 if self.dataset == "folder" else self._images.channels
        return self.task.channels(self.channels)

    @property
    def scale(self) -> int:
        """Side of a target over that of its source."""
        return self.task.scale if self._sources is None else self._matched[1]

    @property
    def image_size(self) -> int:
        """Height and width of targets in training: those asked for, else the shorter side of pictures of one size.

        Raises:
            ValueError: If pictures have several sizes.
        """
        if self._image_size is not None:
            return self._image_size
        if self.dataset != "folder":
            return self.load_size or self._images.image_size - self._images.image_size % self.scale
        halves = 2 if self.side_by_side else 1
        sizes = {resized((h.height, h.width // halves), self.load_size) for h in self._targets.good.values()}
        if len(sizes) != 1:
            raise ValueError(f"the pictures in {self.root} have several sizes: set image_size (--data.image_size)")
        return min(side - side % self.scale for side in sizes.pop())

    @cached_property
    def _matched(self) -> tuple[list[tuple[int, int]], int]:
        """Numbers of the files that belong together, and the scale between them."""
        assert self._sources is not None
        together, _ = partners(self._sources, self._targets)
        return together, common_scale(self._sources, self._targets, together)

    # what is wrong

    def complaints(self) -> list[str]:
        """Why training would refuse the data, a sentence each, as far as can be told without decoding pictures."""
        if self.dataset != "folder":
            return []
        found = self._wrong(self._sources, self._targets)
        if self._val_targets is not None:
            found += self._wrong(self._val_sources, self._val_targets, held_out=True)
        if self._image_size is not None and self._image_size % self.scale:
            found.append(indivisible(self._image_size, self.scale))
        if self.task.matte is not None:
            found += self._unfit_cutouts()
        if not found and self.held_out:
            share_of(self._count(), self.held_out)
        return found

    def _unfit_cutouts(self) -> list[str]:
        """What is wrong with pictures to be laid over others."""
        found = [] if self._backgrounds is None else self._backgrounds.complaints()
        clear = [name for name, h in self._targets.good.items() if h.kind == "transparent"]
        solid = [name for name, h in self._targets.good.items() if h.kind != "transparent"]
        if clear and solid:
            found.append(
                f"{len(solid)} of {len(self._targets)} pictures in {self.root} have no alpha, the others have: "
                f"{some(solid)}; keep cut-outs and other pictures apart"
            )
        elif clear and self._backgrounds is None:
            found.append(
                f"the pictures in {self.root} are cut-outs, which are laid over others: name a folder of these, "
                "task: {matte: {backgrounds: FOLDER}}"
            )
        elif solid and self._backgrounds is not None:
            found.append(
                f"the pictures in {self.root} have no alpha, so nothing is cut out for {self._backgrounds.root}: give "
                "pictures with alpha, or leave backgrounds out to have shapes cut out of others"
            )
        elif solid and len(solid) < 2:
            found.append(f"{self.root} holds one picture, and shapes are cut out of others: add some")
        return found

    def _count(self) -> int:
        return len(self._targets) if self._sources is None else len(self._matched[0])

    def _wrong(self, sources: Folder | None, targets: Folder, held_out: bool = False) -> list[str]:
        """What is wrong with one folder of targets and that of their sources."""
        found = targets.complaints()
        if sources is not None:
            found += sources.complaints()
            together, unmatched = partners(sources, targets)
            found += unmatched + self._uneven(sources, targets, together)
        if self.side_by_side is not None and (odd := [n for n, h in targets.good.items() if h.width % 2]):
            found.append(
                f"{len(odd)} of {len(targets)} pictures in {targets.root} have no two equal halves: {some(odd)}; "
                "their width must be even"
            )
        if self.task.mask is not None and not found:
            shown = [(h.height // self.scale, h.width // self.scale) for h in targets.good.values()]
            for files in self.task.mask.files:
                found += files.complaints(targets.stems, shown)
        least = self._image_size
        if least is not None and (not held_out or self.val_view == "centre"):
            found += targets.too_small(least, self.load_size, halves=self.side_by_side is not None)
        sizes = {(h.height, h.width) for h in targets.good.values()}
        if least is None and self.batch_size > 1 and len(sizes) > 1 and not held_out:
            found.append(several_sizes(targets, len(sizes)))
        return found

    def _uneven(self, sources: Folder, targets: Folder, together: list[tuple[int, int]]) -> list[str]:
        """Pairs whose sizes are not at the scale of the others."""
        scale = common_scale(sources, targets, together)
        odd = []
        for i, j in together:
            small, large = sources.size(i), targets.size(j)
            if small and large and not at_scale(small, large, scale):
                odd.append(f"{targets.files.names[j]} ({small[1]}x{small[0]} and {large[1]}x{large[0]})")
        if not odd:
            return []
        wanted = "be of one size" if scale == 1 else f"differ by the scale {scale} of the others"
        return [
            f"{len(odd)} of {len(together)} pairs of {sources.root} and {targets.root} do not match in size: "
            f"{some(odd)}; source and target must {wanted}"
        ]

    def folders(self) -> list[Folder]:
        """The folders of sources and targets."""
        if self.dataset != "folder":
            return []
        known = (self._sources, self._targets, self._val_sources, self._val_targets, self._backgrounds)
        return [folder for folder in known if folder is not None]

    # what is read

    def pairs(self, split: Split) -> Pairs | Mattes | None:
        """The pairs of a split as validation has them; None where there is no such split.

        The answer has a length, ``pair(i)``, source and target as uint8 (C, H, W), ``name(i)``, ``batch(indices)``, and
        ``targets`` and ``sources``, the pictures of each side.
        """
        base = self._base(split, held_out=True)
        return None if base is None else self._pairs(split, *base, held_out=True)

    def _training_pairs(self) -> Pairs | Mattes:
        base = self._base("train")
        assert base is not None
        return self._pairs("train", *base)

    def _pairs(
        self, split: Split, targets: Pictures, sources: Pictures | None, held_out: bool = False
    ) -> Pairs | Mattes:
        size = None if held_out and self.val_view == "whole" else self._image_size
        view = View(size) if held_out else View(size, self.flip, self.rotate)
        if self.task.matte is not None:
            return Mattes(targets, sources or targets, self.task.matte, view, self._plain_channels)
        stems: list[str] = []
        if self.task.mask is not None and self.task.mask.files and self.dataset == "folder":
            folder, _, together = self._chosen(split)
            stems = [folder.stems[j] for _, j in together]
        return Pairs(targets, sources, self.task, self.scale, view, self._plain_channels, stems)

    def _base(self, split: Split, held_out: bool = False) -> tuple[Pictures, Pictures | None] | None:
        """Targets and sources of a split, read when first asked for; no sources where training draws them anew."""
        fit = held_out and self.val_view == "fit"
        key = (split if self.dataset == "celeba" or split == "train" else "held out", fit)
        if key not in self._bases:
            self._bases[key] = self._read(split, self._image_size if fit else self.load_size)
        base = self._bases[key]
        if base is None or not (self.task.random and held_out):
            return base
        if (key, "made") not in self._bases:
            made = self._made(base[0])
            self._bases[key, "made"] = (base[0], made if split == "train" else self._place(made)[0])
        return self._bases[key, "made"]

    def _read(self, split: Split, load_size: int | None) -> tuple[Pictures, Pictures | None] | None:
        opened = self._open_folder(split) if self.dataset == "folder" else self._open_images(split)
        if opened is None:
            return None
        targets, sources = opened
        if load_size is not None:
            if load_size % self.scale:
                raise ValueError(f"load_size {load_size} is no multiple of the scale {self.scale}: make it one")
            targets = Resized(targets, load_size)
            sources = None if sources is None else Resized(sources, load_size // self.scale)
        if self.task.matte is not None:
            others = self._others(split)
            targets, sources = self._place(targets, others)
            return targets, sources
        if sources is None and self.task.steps and not self.task.random:
            sources = self._made(targets)
        elif sources is None and not self.task.steps:
            sources = targets
        placed = self._place(targets, None if sources is targets else sources)
        if sources is targets:
            placed[1] = placed[0]
        elif isinstance(sources, Made) and not isinstance(placed[1], Stored):
            sources.pictures = placed[0]
        return placed[0], placed[1]

    def _made(self, targets: Pictures) -> Made:
        """Sources that the task makes of whole targets; what it draws depends on their number alone."""
        channels = self._plain_channels
        made = partial(made_of, task=self.task, channels=channels)
        return Made(targets, made, channels, self.task.scale, single=self.task.random)

    def _open_images(self, split: Split) -> tuple[Pictures, None] | None:
        source = self._images.source(split)
        return None if source is None else (pictures_of(source, self._channels), None)

    def _others(self, split: Split) -> Pictures | None:
        """What cut-outs are laid over, of which as large a part is held out as of the cut-outs."""
        if self._backgrounds is None:
            return None
        folder, count = self._backgrounds, len(self._backgrounds)
        first = count - share_of(count, self.held_out / len(self._targets) if self.held_out else 0)
        held_out = self.held_out and split != "train"
        return folder.pictures(range(first, count) if held_out else range(first))

    def _chosen(self, split: Split) -> tuple[Folder, Folder | None, list[tuple[int, int]]]:
        """The folders of a split, and the numbers of the files that make its pairs, (source, target) each."""
        targets, sources, training = self._targets, self._sources, split == "train"
        if not training and self._val_targets is not None:
            targets, sources = self._val_targets, self._val_sources
        together = [(i, i) for i in range(len(targets))]
        if sources is not None:
            together = partners(sources, targets)[0]
        if targets is self._targets:
            first = len(together) - share_of(len(together), self.held_out)
            together = together[:first] if training else together[first:]
        return targets, sources, together[: self.limit]

    def _open_folder(self, split: Split) -> tuple[Pictures, Pictures | None] | None:
        targets, sources, together = self._chosen(split)
        if not together:
            return None
        cutouts = self.task.matte is not None and any(h.kind == "transparent" for h in targets.good.values())
        found: Pictures = targets.pictures([j for _, j in together], 4 if cutouts else None)
        if sources is not None:
            return found, sources.pictures([i for i, _ in together])
        if self.side_by_side is not None:
            left = self.side_by_side == "left_to_right"
            return Halves(found, right=left), Halves(found, right=not left)
        return found, None

    def describe(self, split: Split) -> dict[str, Any]:
        """What tells the pairs of a split from all others, as plain values; of folders, a hash of the files."""
        names = ("dataset", "limit", "image_size", "load_size", "val_view", "channels", "source_channels", "held_out")
        identity = {"split": split, "task": self.hparams["task"], "side_by_side": self.side_by_side}
        identity |= {name: self.hparams[name] for name in names}
        if self.dataset == "folder":
            folders = {"files": self._targets, "source_files": self._sources}
            folders |= {"val_files": self._val_targets, "val_source_files": self._val_sources}
            folders["backgrounds"] = self._backgrounds
            identity |= {name: folder.files.digest for name, folder in folders.items() if folder is not None}
        return identity


def made_of(images: Tensor, indices: Sequence[int], task: Task, channels: int, side: int = 0) -> Tensor:
    """What a task makes of whole pictures, where what it draws depends on their number alone."""
    draw = draw_from(None, indices[0], TASK + 16 * side) if task.random else None
    return with_channels(task(images, draw), channels)


def pictures_of(source: Source, channels: int | None = None) -> Pictures:
    """The images of a data set as pictures."""
    if isinstance(source, ArrayImages) and source.ready and channels in (None, source.shape[0]):
        return Stored(source.array, [source.name(i) for i in range(len(source))])
    return SourcePictures(source, channels)


def several_sizes(folder: Folder, sizes: int) -> str:
    """The sentence on pictures that make no batch."""
    return (
        f"the pictures in {folder.root} have {sizes} different sizes: set image_size (--data.image_size) to train on "
        "windows of them, or batch_size=1"
    )


def check_dataset(dataset: str) -> None:
    """Refuse a data set that does not exist, or that holds points."""
    if is_plane(dataset):
        raise ValueError(f"{dataset} holds points, and pairs are of pictures: take a data set of images")
    if dataset not in get_args(DataSet) and not is_own(dataset):
        hint = nearest(str(dataset).lower(), [name for name in get_args(DataSet) if not is_plane(name)])
        raise ValueError(f"unknown dataset {dataset!r}: {hint} (functions of your own are given as module:function)")


def indivisible(size: int, scale: int) -> str:
    """The sentence on a window that has no whole number of source pixels."""
    near = max(scale, size - size % scale)
    return f"image_size {size} is no multiple of the scale {scale}: set it to {near}, for example"


def at_scale(small: tuple[int, int], large: tuple[int, int], scale: int) -> bool:
    """Whether two sizes (height, width) differ by the scale; the larger may have some pixels that are cut off."""
    return all(big // scale <= side <= -(-big // scale) for side, big in zip(small, large, strict=True))


def common_scale(sources: Folder, targets: Folder, together: list[tuple[int, int]]) -> int:
    """The scale of most pairs; 1 where none can be told."""
    scales: Counter[int] = Counter()
    for i, j in together:
        small, large = sources.size(i), targets.size(j)
        if small and large:
            scale = max(1, round(large[0] / small[0]))
            scales[scale] += at_scale(small, large, scale)
    return max(scales, key=lambda scale: (scales[scale], -scale), default=1)
