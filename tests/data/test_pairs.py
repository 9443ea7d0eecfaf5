"""Paired and unpaired pictures: what belongs together, what is drawn when, and what is refused."""

import inspect
import itertools
import shutil
import warnings
import zipfile

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from lit_gans import PairedImageDataModule, UnpairedImageDataModule
from lit_gans.cli import main
from lit_gans.commands.precheck import data_arguments
from lit_gans.commands.restoring import data_class_of, data_of
from lit_gans.data import examine
from lit_gans.data.tasks import parse_task
from lit_gans.errors import UserError


def coordinates(height, width, scale=1, tag=0):
    """A picture whose pixels hold their row and column, times the scale, and a number of its own."""
    rows, columns = np.mgrid[:height, :width] * scale
    return np.stack([rows, columns, np.full_like(rows, tag)], -1).astype(np.uint8)


def noise(seed, height=16, width=16, channels=3):
    array = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return array if channels > 1 else array[..., 0]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def unscaled(batch):
    return ((batch + 1) * 127.5).round().to(torch.uint8)


def loaded(kind=PairedImageDataModule, **options):
    data = kind(**{"batch_size": 4, "drop_last": False, **options})
    data.setup()
    return data


def equal(some, others):
    some, others = list(some), list(others)
    return len(some) == len(others) and all(
        torch.equal(a, b) for x, y in zip(some, others, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.fixture
def photos(tmp_path):
    """Nine coloured pictures of two sizes, in a folder."""
    for n in range(9):
        save(tmp_path / "photos" / f"{n}.png", noise(n, *((20, 24) if n % 2 else (24, 20))))
    return tmp_path / "photos"


# what belongs together


def assert_aligned(source, target, scale):
    """Each pixel of the source is the first of a block of the target, whatever was cut, mirrored and turned."""
    source, target = unscaled(source).int(), unscaled(target).int()
    blocks = target.unfold(2, scale, scale).unfold(3, scale, scale)
    assert torch.equal(blocks.amin((4, 5)), source)
    assert torch.equal(blocks.amax((4, 5))[:, :2], source[:, :2] + scale - 1)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("in_memory", [True, False])
def test_two_folders_line_up_under_crop_flip_and_turn(tmp_path, scale, in_memory):
    for n, (height, width) in enumerate([(24, 30), (30, 24), (36, 36), (24, 24), (31, 29)]):
        save(tmp_path / "high" / f"{n}.png", coordinates(height, width, tag=n))
        save(tmp_path / "low" / "inner" / f"{n}.bmp", coordinates(height // scale, width // scale, scale, n))
    data = loaded(
        root=tmp_path / "high", source_root=str(tmp_path / "low"), image_size=12, flip=True, rotate=True, batch_size=5,
        in_memory=in_memory, held_out=1,
    )  # fmt: skip
    assert (data.scale, data.channels, data.source_channels, data.image_size) == (scale, 3, 3, 12)
    corners, turns, tags = set(), set(), []
    loader = data.train_dataloader()
    for _ in range(12):
        for source, target in loader:
            assert target.shape[2:] == (12, 12)
            assert source.shape[2:] == (12 // scale, 12 // scale)
            assert_aligned(source, target, scale)
            for picture in unscaled(target).int():
                corners.add((int(picture[0].min()), int(picture[1].min())))
                down, right = picture[:2, 1, 0] - picture[:2, 0, 0], picture[:2, 0, 1] - picture[:2, 0, 0]
                turns.add((*down.tolist(), *right.tolist()))
                tags.append(int(picture[2, 0, 0]))
    assert len(turns) == 8  # four turns, mirrored or not
    assert all(top % scale == left % scale == 0 for top, left in corners)
    assert len(corners) > 10
    assert sorted(set(tags)) == [0, 1, 2, 3]
    ((source, target),) = data.val_dataloader()  # the last by name, whole, cut to multiples of the scale
    assert target.shape[2:] == (31 - 31 % scale, 29 - 29 % scale)
    assert_aligned(source, target, scale)


@pytest.mark.parametrize("side", ["left_to_right", "right_to_left"])
def test_halves_of_one_picture_line_up(tmp_path, side):
    for n in range(4):
        left, right = coordinates(18, 20, tag=n), coordinates(18, 20, tag=100 + n)
        save(tmp_path / f"{n}.png", np.concatenate([left, right], 1))
    data = loaded(root=tmp_path, side_by_side=side, image_size=8, flip=True)
    for source, target in data.train_dataloader():
        difference = unscaled(target).int() - unscaled(source).int()
        assert difference[:, :2].abs().max() == 0
        assert set(difference[:, 2].unique().tolist()) == {100 if side == "left_to_right" else -100}


NOTHING_DRAWN = [
    *("grey", {"downscale": 2}, "edges", {"blur": 1.5}, [{"blur": 1.0}, {"downscale": 2}]),
    [{"noise": 0}, {"blur": 1.0}, {"downscale": 2}],  # made of windows with their surroundings, as tasks that draw are
]


@pytest.mark.parametrize("task", NOTHING_DRAWN)
@pytest.mark.parametrize("in_memory", [True, False])
def test_sources_are_windows_of_the_whole_source(photos, task, in_memory):
    data = loaded(root=photos, task=task, image_size=8, in_memory=in_memory, batch_size=9)
    ((_, target),) = loader = data.train_dataloader()
    loader.set_epoch(0)
    ((source, _),) = loader
    scale, pairs = data.scale, data.pairs("train")
    for part, window in zip(unscaled(source), unscaled(target), strict=True):
        for n in range(len(pairs)):
            small, whole = pairs.pair(n)
            assert torch.equal(small, parse_task(task)(whole[None])[0])
            places = (whole.unfold(1, 8, 1).unfold(2, 8, 1) == window[:, None, None]).all((0, 3, 4)).nonzero()
            if len(places):
                top, left = (places[0] // scale).tolist()
                assert torch.equal(part, small[:, top : top + 8 // scale, left : left + 8 // scale])
                break
        else:
            pytest.fail("the target is a window of no picture")


def test_sources_of_a_task_that_draws_lie_on_their_targets_too(photos):
    data = loaded(root=photos, task={"noise": 0}, image_size=8, flip=True, rotate=True)
    assert data.task.random
    assert all(torch.equal(source, target) for source, target in data.train_dataloader())


def test_masks_are_the_last_channel_and_what_is_known_stays_as_it_is(photos):
    data = loaded(root=photos, task="mask", image_size=8)
    assert (data.source_channels, data.channels) == (4, 3)
    for source, target in itertools.chain(data.train_dataloader(), loaded(
        root=photos, task={"mask": "strokes"}, image_size=8, held_out=3).val_dataloader()):  # fmt: skip
        mask = source[:, 3:]
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(source[:, :3], torch.where(mask > 0, 0.0, target))
    small = PairedImageDataModule("digits", task=["grey", {"mask": {"size": 0.5}}])
    source, target = next(iter(small.train_dataloader()))
    assert source[:, 1].sum((1, 2)).tolist() == [16.0] * 16


def test_masks_by_name_move_with_their_picture(tmp_path):
    for n in range(6):
        hole = np.random.default_rng(n).random((14, 18)) < 0.3
        picture = noise(n, 14, 18)
        picture[..., 0] = np.where(hole, 255, 10)  # red says where the hole must be
        save(tmp_path / "photos" / f"{n}.png", picture)
        save(tmp_path / "masks" / f"{n}.bmp", hole.astype(np.uint8) * 255)
    task = {"mask": {"kind": "files", "root": str(tmp_path / "masks"), "match": True}}
    data = loaded(root=tmp_path / "photos", task=task, image_size=8, flip=True, rotate=True, held_out=2)
    for source, target in itertools.chain(data.train_dataloader(), data.val_dataloader()):
        assert torch.equal(source[:, 3], (target[:, 0] > 0).float())


def test_mattes_are_laid_over_other_pictures_at_their_opacity(tmp_path):
    for n in range(4):
        cutout = np.zeros((20, 22, 4), np.uint8)
        cutout[..., 0] = 200
        cutout[..., 3] = noise(n, 20, 22, 1)
        save(tmp_path / "cutouts" / f"{n}.png", cutout)
        save(tmp_path / "grounds" / f"{n}.png", np.full((12, 30, 3), (100, 0, n), np.uint8))
    task = {"matte": {"backgrounds": str(tmp_path / "grounds")}}
    data = loaded(root=tmp_path / "cutouts", task=task, image_size=16, flip=True, rotate=True, held_out=1)
    assert (data.channels, data.source_channels) == (1, 3)
    for source, target in itertools.chain(data.train_dataloader(), data.val_dataloader()):
        alpha = unscaled(target).double() / 255
        assert (unscaled(source)[:, :1].double() - (100 + 100 * alpha)).abs().max() <= 0.51
    blue = {float(unscaled(source)[..., 2, :, :].max()) for source, _ in data.val_dataloader()}
    assert blue <= {3.0}  # as many backgrounds are held out


def test_shapes_are_cut_out_of_other_pictures_where_there_is_no_alpha(tmp_path):
    for n in range(4):
        save(tmp_path / f"{n}.png", np.full((32, 32, 3), 60 * n, np.uint8))
    data = loaded(root=tmp_path, task="matte", in_memory=True)
    for _ in range(3):
        for source, target in data.train_dataloader():
            assert target.shape == (4, 1, 32, 32)
            grey, alpha = unscaled(source).int()[:, 0], unscaled(target)[:, 0]
            assert all(g[a == 0].unique().numel() == 1 for g, a in zip(grey, alpha, strict=True))
            inner = [(g[a == 255].unique(), g[a == 0].unique()) for g, a in zip(grey, alpha, strict=True)]
            assert all(len(x) == 1 and x != y for x, y in inner)


# what is drawn when

KINDS = {
    "noise": (PairedImageDataModule, {"dataset": "digits", "task": {"noise": [1, 30]}, "flip": True}),
    "mask": (PairedImageDataModule, {"dataset": "digits", "task": "mask", "image_size": 6, "rotate": True}),
    "matte": (PairedImageDataModule, {"dataset": "digits", "task": "matte", "image_size": 6}),
    "plain": (PairedImageDataModule, {"dataset": "digits", "task": "invert", "flip": True}),
    "halves": (UnpairedImageDataModule, {"dataset": "digits", "task_b": "invert", "flip": True, "image_size": 6}),
    "classes": (UnpairedImageDataModule, {"dataset": "digits", "classes_a": 3, "classes_b": [8, 9]}),
}


def small(name, **options):
    kind, arguments = KINDS[name]
    return kind(**{"limit": 22, "batch_size": 4, **arguments, **options})


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_epoch_goes_on_bit_for_bit(name):
    reference = small(name).train_dataloader()
    straight = [*reference, *reference]
    for seen in (1, 2, len(reference) + 1):
        loader = small(name).train_dataloader()
        passes = itertools.chain(loader, loader)
        taken = list(itertools.islice(passes, seen))
        resumed = small(name).train_dataloader()
        resumed.load_state_dict(loader.state_dict())
        rest = [*resumed, *(resumed if seen < len(reference) else ())]
        assert equal(straight, taken + rest)


@pytest.mark.parametrize("name", ["noise", "matte", "halves"])
def test_workers_read_the_same(name):
    before = torch.get_rng_state()
    assert equal(small(name).train_dataloader(), small(name, num_workers=2).train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["noise", "mask", "classes"])
def test_ranks_share_an_epoch(name):
    whole = small(name, batch_size=1).train_dataloader()
    parts = [small(name, batch_size=1).train_dataloader() for _ in range(2)]
    for rank, part in enumerate(parts):
        part.rank, part.world = rank, 2
    joint = [pair for both in zip(*parts, strict=True) for pair in both]
    assert equal(joint, itertools.islice(whole, len(joint)))
    assert len(joint) == len(whole) - len(whole) % 2


@pytest.mark.parametrize("task", ["edges", {"downscale": 2}, {"noise": 20}, "mask", "matte", {"jpeg": 40}])
def test_in_memory_equals_streamed(photos, task):
    options = {"root": photos, "task": task, "image_size": 12, "flip": True, "rotate": True, "held_out": 3}
    memory, streamed = (loaded(**options, in_memory=choice) for choice in (True, False))
    assert equal(memory.train_dataloader(), streamed.train_dataloader())
    assert equal(memory.val_dataloader(), streamed.val_dataloader())
    resized = [loaded(**options, in_memory=choice, load_size=15 - 15 % 2 + 2) for choice in (True, False)]
    assert equal(*(data.train_dataloader() for data in resized))


@pytest.mark.parametrize("name", ["noise", "mask", "matte", "halves"])
def test_training_draws_anew_in_each_epoch_and_validation_never(name):
    loader = small(name, limit=40).train_dataloader()
    first, second = {x.sum().item() for x, _ in loader}, {x.sum().item() for x, _ in loader}
    assert first != second
    assert {x.sum().item() for x, _ in small(name, limit=40, seed=1).train_dataloader()} != first
    held_out = small(name).val_dataloader()
    once = list(held_out)
    assert equal(once, held_out)
    assert equal(once, small(name, seed=5).val_dataloader())
    pairs = small(name).pairs("val")
    source, target = pairs.pair(3)
    batch = once[0][0][3]
    if name == "mask":
        batch = torch.cat([batch[:1], 2 * batch[1:] - 1])
    assert torch.equal(source, unscaled(batch))
    assert torch.equal(target, unscaled(once[0][1][3]))


def test_each_pair_has_a_draw_of_its_own():
    for name in ("mask", "matte", "noise"):
        source, target = next(iter(small(name, batch_size=20).train_dataloader()))
        drawn = {"mask": source[:, 1:], "matte": target, "noise": source - target}[name]
        assert len({x.numpy().tobytes() for x in drawn}) > 8, name


def test_lightning_goes_on_in_the_middle_of_an_epoch(tmp_path):
    class Recorder(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization, self.seen = False, []
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch):
            self.optimizers().step()
            self.seen.append(batch)

    def fit(ckpt_path=None):
        saving = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[saving],
        )  # fmt: skip
        module = Recorder()
        trainer.fit(module, small("noise"), ckpt_path=ckpt_path)
        return module.seen

    straight = fit()
    assert len(straight) == 10
    checkpoint = tmp_path / "step=7.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    assert equal(fit(checkpoint), straight[7:])
    assert data_class_of(saved) is PairedImageDataModule
    arguments = data_of(saved, inspect.signature(PairedImageDataModule).parameters)
    assert PairedImageDataModule(**arguments).hparams == small("noise").hparams
    for task in ({"class_path": "os.system"}, [{"a": {"class_path": 1}}]):
        saved["datamodule_hyper_parameters"]["task"] = task
        assert "task" not in data_of(saved, ["task"])
    saved["datamodule_hyper_parameters"]["task"] = "{class_path: os.system}"
    with pytest.raises(UserError, match="the checkpoint is damaged: its data had task"):
        data_of(saved, ["task"])


# unpaired


def test_both_sides_of_the_same_pictures_are_apart():
    data = small("halves", limit=None, flip=False, image_size=None)
    pairs = data.pairs("train")
    a, b = ({side.picture(n).numpy().tobytes() for n in range(len(side))} for side in (pairs.sources, pairs.targets))
    inverted = {(255 - np.frombuffer(picture, np.uint8)).tobytes() for picture in b}
    assert len(pairs.sources) == len(pairs.targets) == 719
    assert len(a & inverted) <= 1  # no picture twice, but for digits that are alike to the pixel


def test_an_epoch_shows_the_longer_side_once_and_the_other_evenly_with_new_partners():
    data = loaded(UnpairedImageDataModule, dataset="digits", classes_a=3, classes_b=[8, 9], batch_size=1)
    lengths = [len(side) for side in (data.pairs("train").sources, data.pairs("train").targets)]
    assert lengths[0] < lengths[1]
    loader = data.train_dataloader()
    epochs = [[(a.numpy().tobytes(), b.numpy().tobytes()) for a, b in loader] for _ in range(2)]
    for epoch in epochs:
        assert len(epoch) == len({b for _, b in epoch}) == lengths[1]
        counts = np.unique([list(a) for a, _ in epoch], axis=0, return_counts=True)[1]
        assert len(counts) == lengths[0]
        assert set(counts.tolist()) <= {lengths[1] // lengths[0], lengths[1] // lengths[0] + 1}
    assert len(set(epochs[0]) & set(epochs[1])) < 30


def test_two_folders_two_data_sets_and_single_pictures(tmp_path, photos):
    save(tmp_path / "a.png", coordinates(30, 40, tag=1))
    save(tmp_path / "b.png", coordinates(40, 30, tag=2))
    single = loaded(
        UnpairedImageDataModule, root=tmp_path / "a.png", root_b=str(tmp_path / "b.png"), image_size=9, epoch_length=12
    )
    batches = list(single.train_dataloader())
    assert len(batches) == 3
    windows = [unscaled(side) for batch in batches for side in batch]
    assert {int(window[0, 2, 0, 0]) for window in windows} == {1, 2}
    assert len({tuple(picture[:2, 0, 0].tolist()) for window in windows for picture in window}) > 12
    assert single.val_dataloader() == []
    for n in range(4):
        save(tmp_path / "others" / f"{n}.png", noise(50 + n, 20, 20))
    two = loaded(UnpairedImageDataModule, root=photos, root_b=str(tmp_path / "others"), image_size=16, held_out=0.25)
    assert (len(two.train_dataloader()), two.channels, two.source_channels, two.scale) == (2, 3, 3, 1)
    assert [len(side) for side in (two.pairs("val").sources, two.pairs("val").targets)] == [2, 1]
    sets = loaded(UnpairedImageDataModule, dataset="digits", dataset_b="fake", channels=1, load_size=32, limit=20)
    a, b = next(iter(sets.train_dataloader()))
    assert a.shape == b.shape == (4, 1, 32, 32)


def test_colours_are_drawn_once_for_each_picture():
    data = small("halves", task_b="colour", source_channels=3, flip=False, image_size=None, batch_size=11)
    loader = data.train_dataloader()
    (_, b), (_, again) = next(iter(loader)), next(iter(loader))
    assert b.shape[1] == 3
    assert {x.numpy().tobytes() for x in b} == {x.numpy().tobytes() for x in again}


# splits, views, files


def test_what_is_held_out_is_the_last_by_name(photos, tmp_path):
    data = loaded(root=photos, task="grey", image_size=20, held_out=2)
    assert [data.pairs("train").name(n) for n in range(7)] == [f"{n}.png" for n in range(7)]
    assert [data.pairs("val").name(n) for n in range(2)] == ["7.png", "8.png"]
    assert len(loaded(root=photos, task="grey", image_size=20, held_out=0.34).pairs("test")) == 3
    shutil.copytree(photos, tmp_path / "more")
    apart = loaded(root=photos, task="grey", image_size=20, val_root=str(tmp_path / "more"))
    assert (len(apart.pairs("train")), len(apart.pairs("val"))) == (9, 9)
    assert loaded(root=photos, task="grey", image_size=20).val_dataloader() == []


def test_views_of_validation(photos):
    def sizes(**options):
        data = loaded(root=photos, task={"downscale": 2}, held_out=4, **options)
        return [tuple(target.shape) for _, target in data.val_dataloader()]

    whole = sizes(image_size=12)
    assert sorted(whole) == [(1, 3, 20, 24)] * 2 + [(1, 3, 24, 20)] * 2  # of two sizes: one at a time
    assert sizes(image_size=12, val_view="centre") == [(4, 3, 12, 12)]
    assert sizes(image_size=12, val_view="fit") == [(4, 3, 12, 12)]
    assert sorted(sizes(image_size=12, load_size=40)) == [(1, 3, 40, 48)] * 2 + [(1, 3, 48, 40)] * 2


def test_zips_and_turned_photographs(tmp_path, photos):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.write(path, f"some/folder/{path.name}")
    zipped = loaded(root=tmp_path / "photos.zip", source_root=str(photos), image_size=12)
    assert all(torch.equal(source, target) for source, target in zipped.train_dataloader())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    (tmp_path / "turned").mkdir()
    for n in range(3):
        Image.fromarray(noise(n, 16, 32)).save(tmp_path / "turned" / f"{n}.jpg", exif=exif)
        save(tmp_path / "upright" / f"{n}.png", noise(n, 32, 16))
    data = loaded(root=tmp_path / "turned", source_root=str(tmp_path / "upright"))
    source, target = next(iter(data.train_dataloader()))
    assert source.shape == target.shape == (3, 3, 32, 16)


def test_grey_sources_and_converted_channels(photos):
    data = loaded(root=photos, task="grey", image_size=8, source_channels=3)
    source, _ = next(iter(data.train_dataloader()))
    assert source.shape[1] == data.source_channels == 3
    assert (source == source[:, :1]).all()
    grey = loaded(root=photos, task="edges", image_size=8, channels=1)
    assert [x.shape[1] for x in next(iter(grey.train_dataloader()))] == [1, 1]


def test_a_description_tells_what_differs(photos):
    data = loaded(root=photos, task="grey", image_size=8)
    same = loaded(root=photos, task="grey", image_size=8, seed=3, batch_size=2)
    assert data.describe("val") == same.describe("val")
    assert data.describe("val") != loaded(root=photos, task="edges", image_size=8).describe("val")
    save(photos / "9.png", noise(9, 20, 24))
    assert data.describe("val") != loaded(root=photos, task="grey", image_size=8).describe("val")
    halves = small("halves")
    assert halves.describe("val") != small("classes").describe("val")


# refusals


@pytest.fixture
def twins(tmp_path):
    """Two folders of four pictures that match."""
    for n in range(4):
        save(tmp_path / "a" / f"{n}.png", noise(n))
        save(tmp_path / "b" / f"{n}.jpg", noise(n))
    return tmp_path


def paired(folder, **options):
    PairedImageDataModule(root=folder / "b", source_root=str(folder / "a"), batch_size=2, **options).setup()


def test_pairs_that_do_not_match_are_named(twins):
    paired(twins)
    save(twins / "a" / "lonely.png", noise(0))
    with pytest.raises(
        ValueError, match=r"1 of 5 pictures in .*a have no partner in .*b: lonely.png; give both the sam"
    ):
        paired(twins)
    (twins / "a" / "lonely.png").unlink()
    save(twins / "a" / "2.png", noise(0, 16, 18))
    with pytest.raises(ValueError, match=r"1 of 4 pairs of .* do not match in size: 2.jpg \(18x16 and 16x16\); source"):
        paired(twins)
    save(twins / "a" / "2.png", noise(0))
    save(twins / "a" / "2.bmp", noise(0))
    with pytest.raises(ValueError, match=r"1 names stand for several files in .*a: 2; keep one"):
        paired(twins)


def test_sizes_that_are_not_at_the_scale_are_named(tmp_path):
    for n in range(4):
        save(tmp_path / "b" / f"{n}.png", noise(n, 16, 24))
        save(tmp_path / "a" / f"{n}.png", noise(n, 8, 12))
    paired(tmp_path)
    with pytest.raises(ValueError, match="image_size 9 is no multiple of the scale 2: set it to 8"):
        paired(tmp_path, image_size=9)
    save(tmp_path / "a" / "3.png", noise(3, 16, 24))
    with pytest.raises(ValueError, match=r"3.png \(24x16 and 24x16\); source and target must differ by the scale 2"):
        paired(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sources come from one of source_root .* give one"),
        ({"task": "grey", "side_by_side": "left_to_right"}, "leave out all but one of side_by_side, task"),
        ({"side_by_side": "left_right"}, "unknown side_by_side 'left_right': did you mean left_to_right"),
        ({"task": "gray"}, "unknown task 'gray': did you mean grey"),
        ({"task": {"downscale": 3}, "image_size": 8}, "image_size 8 is no multiple of the scale 3: set it to 6"),
        ({"task": "grey", "image_size": 8, "load_size": 6}, "load_size 6 is smaller than image_size 8"),
        ({"task": "grey", "val_view": "center"}, "unknown val_view 'center': did you mean centre"),
        ({"task": "grey", "val_view": "fit"}, "val_view fit shows windows of image_size: give it"),
        ({"task": {"rotate": 90}}, "rotate as a task is for unpaired pictures"),
        ({"task": "matte", "channels": 3}, "the target of matte is an opacity of one channel"),
        ({"dataset": "digits", "source_root": "x"}, "source_root is for dataset folder: digits has targets alone"),
        ({"dataset": "digits", "task": "grey", "held_out": 3}, "held_out is for dataset folder"),
        ({"dataset": "ring", "task": "grey"}, "ring holds points, and pairs are of pictures"),
        ({"dataset": "digit", "task": "grey"}, "unknown dataset 'digit': did you mean digits"),
        ({"task": "grey", "batch_size": 0}, "batch_size must be at least 1"),
        ({"task": "grey", "channels": 2}, "channels must be 1 .grey. or 3"),
    ],
)
def test_arguments_that_contradict_one_another(options, message):
    with pytest.raises(ValueError, match=message):
        PairedImageDataModule(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "side B would be side A: say what differs"),
        ({"dataset": "digits", "task_b": "mask"}, "task_b 'mask' makes no picture of the same size"),
        ({"dataset": "digits", "task_b": {"downscale": 2}}, "makes no picture of the same size"),
        ({"root_b": "x", "classes_a": 3}, "classes_a chooses classes of a data set by number"),
        ({"dataset": "digits", "task_b": "invert", "held_out": 1}, "data sets have a held-out part of their own"),
        ({"root_b": "x", "val_root": "y"}, "val_root and val_root_b go together"),
        ({"root_b": "x", "epoch_length": 0}, "epoch_length must be at least 1"),
    ],
)
def test_sides_that_contradict_one_another(options, message):
    with pytest.raises(ValueError, match=message):
        UnpairedImageDataModule(**options)


def test_pictures_that_cannot_be_trained_on(photos, tmp_path):
    def refuse(message, kind=PairedImageDataModule, **options):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            kind(**{"root": photos, "batch_size": 2, **options}).setup()

    refuse(
        r"9 of 9 pictures in .* are smaller than image_size 32: 0.png \(20 px\).*at most 20", task="grey", image_size=32
    )
    refuse("have 2 different sizes: set image_size", task="grey")
    refuse("held_out=9 leaves none of 9 pictures to learn from", task="grey", image_size=8, held_out=9)
    refuse("no folder or .zip of images at .*nowhere: point `source_root`", source_root=str(tmp_path / "nowhere"))
    save(tmp_path / "one" / "a.png", noise(0))
    refuse("holds one picture, and shapes are cut out of others", root=tmp_path / "one", task="matte")
    refuse(
        "holds one picture, and each side needs its own",
        UnpairedImageDataModule,
        root=tmp_path / "one",
        task_b="grey",
        channels=3,
    )
    refuse(
        "holds one picture: add others, or name the file itself",
        UnpairedImageDataModule,
        root_b=str(tmp_path / "one"),
        image_size=8,
    )
    one = {"root": tmp_path / "one" / "a.png", "root_b": str(tmp_path / "one" / "a.png")}
    save(tmp_path / "one" / "b.png", noise(1))
    one["root_b"] = str(tmp_path / "one" / "b.png")
    refuse("each side is one picture: set epoch_length", UnpairedImageDataModule, **one, image_size=8)
    save(tmp_path / "grey" / "a.png", noise(0, channels=1))
    save(tmp_path / "grey" / "b.png", noise(1, channels=1))
    refuse(
        "side A has 3 channels, side B 1: set source_channels and channels",
        UnpairedImageDataModule,
        root=tmp_path / "one",
        root_b=str(tmp_path / "grey"),
    )
    save(tmp_path / "mixed" / "a.png", noise(0))
    save(tmp_path / "mixed" / "b.png", noise(1))
    save(tmp_path / "mixed" / "c.png", noise(1, channels=1))
    refuse("set channels=3 .--data.channels 3", root=tmp_path / "mixed", task="grey")
    refuse(
        "set source_channels=3 .--data.source_channels 3",
        UnpairedImageDataModule,
        root=tmp_path / "mixed",
        root_b=str(tmp_path / "one"),
    )
    save(tmp_path / "odd" / "a.png", noise(0, 16, 33))
    refuse(
        "have no two equal halves: a.png; their width must be even", root=tmp_path / "odd", side_by_side="left_to_right"
    )
    save(tmp_path / "cut" / "a.png", noise(0, channels=4))
    refuse("are cut-outs, which are laid over others: name a folder", root=tmp_path / "cut", task="matte")
    save(tmp_path / "masks" / "a.png", noise(0, 9, 9, 1))
    masks = {"mask": {"kind": "files", "root": str(tmp_path / "masks"), "match": True}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refuse(
            r"1 masks in .* are not of their picture's size: a \(9x9, its picture 33x16\)",
            root=tmp_path / "odd",
            task=masks,
        )
    refuse(
        "digits has classes 0..9: choose among them, not 11",
        UnpairedImageDataModule,
        dataset="digits",
        classes_a=11,
        classes_b=1,
    )
    path = photos / "4.png"
    path.write_bytes(path.read_bytes()[:200])
    refuse("cannot read 1 image file in .*: 4.png", task="grey", image_size=8, in_memory=True)
    refuse("cannot read 1 image file in .*: 4.png", task="grey", image_size=8, in_memory=False)


# the command line


def test_check_data_names_what_does_not_match(twins, capsys):
    words = ["check-data", "--data", "PairedImageDataModule", "--data.root", str(twins / "b"), "--data.batch_size=2"]
    words += ["--data.source_root", str(twins / "a")]
    main([*words, "-o", str(twins / "sheet.png")])
    told = capsys.readouterr().out
    assert "4 pairs" in told
    assert "training takes it" in told
    assert Image.open(twins / "sheet.png").size == (8 * 96, 96)
    save(twins / "a" / "lonely.png", noise(0))
    save(twins / "a" / "2.png", noise(0, 16, 18))
    data = (twins / "b" / "3.jpg").read_bytes()
    (twins / "b" / "3.jpg").write_bytes(data[: len(data) // 3])
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 1
    told = capsys.readouterr().out
    for part in ("lonely.png; give both", "2.jpg (18x16 and 16x16)", "cannot read 1 image file", "b/3.jpg"):
        assert part in told


def test_check_data_takes_what_training_takes(photos, capsys):
    report = examine(UnpairedImageDataModule(root=photos, task_b="invert", image_size=8, batch_size=2))
    assert report.ok
    assert report.count == 5
    assert examine(small("noise")).ok
    few = examine(PairedImageDataModule(root=photos, task="grey", image_size=8, batch_size=20))
    assert "batch_size 20 is larger than the data set of 9" in few.problems[0]
    main(["check-data", "--data=UnpairedImageDataModule", "--data.dataset=digits", "--data.task_b={rotate: 90}"])
    assert "719 pairs" in capsys.readouterr().out
    assert "did you mean data.task_b" in refused(
        capsys, "check-data", "--data=UnpairedImageDataModule", "--data.taskb=invert"
    )


def test_options_of_the_command_line_are_the_arguments():
    for kind in (PairedImageDataModule, UnpairedImageDataModule):
        assert data_arguments(kind.__name__) == set(inspect.signature(kind).parameters)
