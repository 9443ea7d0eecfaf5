"""The loader: order, ranks, position, and its ways with Lightning."""

import copy
import itertools

import lightning
import pytest
import torch

from lit_gans.data import ImageDataModule, ResumableLoader
from lit_gans.data.sources import ArrayImages, FakeImages


def numbered(n=23):
    """Images whose only pixel pair and label are their number."""
    array = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 1, 2).clone()
    array[..., 1] += 100
    return ArrayImages(array, torch.arange(n))


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def labels(loader):
    return [batch[1].tolist() for batch in loader]


def test_an_epoch_shows_every_image_once_and_the_next_one_in_another_order():
    loader = ResumableLoader(numbered(20), batch_size=4)
    first, second = labels(loader), labels(loader)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(20))
    assert first != second
    assert labels(ResumableLoader(numbered(20), batch_size=4)) == first
    assert labels(ResumableLoader(numbered(20), batch_size=4, seed=1)) != first
    loader.set_epoch(0)
    assert labels(loader) == first


def test_images_go_with_their_labels():
    for images, numbers in ResumableLoader(numbered(), batch_size=4, drop_last=False):
        assert torch.equal(((images[:, 0, 0, 0] + 1) * 127.5).round(), numbers.float())


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [5, 5]), (False, [5, 5, 1])])
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_see_as_many_batches(drop_last, sizes, rank):
    loader = ResumableLoader(numbered(), batch_size=5, drop_last=drop_last, rank=rank, world=2)
    assert [len(b) for b in labels(loader)] == sizes
    assert len(loader) == len(sizes)


def test_ranks_partition_each_epoch():
    ranks = [ResumableLoader(numbered(24), batch_size=3, rank=rank, world=2) for rank in (0, 1)]
    for _ in range(2):
        assert sorted(flat(labels(ranks[0]) + labels(ranks[1]))) == list(range(24))


def test_evaluation_is_in_order_and_complete_over_ranks():
    assert flat(labels(ResumableLoader(numbered(), batch_size=5, shuffle=False))) == list(range(23))
    shares = [flat(labels(ResumableLoader(numbered(), 5, shuffle=False, rank=rank, world=2))) for rank in (0, 1)]
    assert shares == [list(range(0, 23, 2)), list(range(1, 23, 2))]


@pytest.mark.parametrize("seen", [0, 1, 4, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_position_is_restored_exactly(seen, workers):
    options = {"batch_size": 4, "flip": True, "num_workers": workers}
    source = FakeImages(20, channels=1, size=4)
    reference = ResumableLoader(source, batch_size=4, flip=True)
    straight = [*reference, *reference]
    loader = ResumableLoader(source, **options)
    taken = list(itertools.islice(loader, seen))
    resumed = ResumableLoader(source, **options)
    resumed.load_state_dict(loader.state_dict())
    assert resumed.state_dict() == loader.state_dict()
    rest = [*resumed, *resumed]
    assert len(taken) + len(rest) == (10 if seen < 5 else 15)
    for (a, la), (b, lb) in zip(straight, taken + rest, strict=False):
        assert torch.equal(a, b)
        assert torch.equal(la, lb)


def test_position_survives_another_split_of_the_joint_batch():
    loader = ResumableLoader(numbered(24), batch_size=4)
    seen = flat(batch[1].tolist() for batch in itertools.islice(loader, 3))
    ranks = [ResumableLoader(numbered(24), batch_size=2, rank=rank, world=2) for rank in (0, 1)]
    for rank in ranks:
        rank.load_state_dict(loader.state_dict())
    assert sorted(seen + flat(labels(ranks[0]) + labels(ranks[1]))) == list(range(24))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(workers):
    before = torch.get_rng_state()
    list(ResumableLoader(FakeImages(16, size=4), batch_size=4, flip=True, num_workers=workers))
    assert torch.equal(before, torch.get_rng_state())


def test_a_peek_changes_nothing():
    loader = ResumableLoader(numbered(), batch_size=4)
    expected = labels(copy.copy(loader))
    next(iter(copy.copy(loader)))
    iter(loader)
    assert loader.state_dict() == {"epoch": 0, "seen": 0}
    assert labels(loader) == expected
    assert loader.state_dict() == {"epoch": 1, "seen": 0}


def test_a_pass_left_early_starts_again():
    loader = ResumableLoader(numbered(), batch_size=4)
    first = next(iter(loader))[1]
    assert torch.equal(first, next(iter(loader))[1])


def test_flips_mirror_half_of_the_images_by_seed_epoch_and_index():
    source = numbered(150)
    batches = [ResumableLoader(source, batch_size=150, flip=True, seed=seed) for seed in (0, 0, 1)]
    mirrored = []
    for loader in batches:
        images, numbers = next(iter(loader))
        straight = source.array[numbers].float() / 127.5 - 1
        flags = (images == straight.flip(-1)).all(dim=(1, 2, 3))
        assert torch.equal(images[~flags], straight[~flags])
        mirrored.append(dict(zip(numbers.tolist(), flags.tolist(), strict=True)))
    assert mirrored[0] == mirrored[1] != mirrored[2]
    assert 50 < sum(mirrored[0].values()) < 100
    for rank in (0, 1):
        for images, numbers in ResumableLoader(source, batch_size=7, flip=True, rank=rank, world=2):
            flags = images[:, 0, 0, 0] > images[:, 0, 0, 1]
            assert flags.tolist() == [mirrored[0][n] for n in numbers.tolist()]
    images, _ = next(iter(ResumableLoader(source, batch_size=150)))
    assert (images[..., 0] < images[..., 1]).all()


def test_too_few_images_for_one_batch():
    with pytest.raises(
        ValueError, match="batch_size 64 is larger than the data set of 23 images: set batch_size to at"
    ):
        ResumableLoader(numbered(), batch_size=64)
    with pytest.raises(ValueError, match="batch_size 16 on each of 2 ranks is larger than the data set of 23 images"):
        ResumableLoader(numbered(), batch_size=16, world=2)
    assert len(ResumableLoader(numbered(), batch_size=64, drop_last=False)) == 1


class Recorder(lightning.LightningModule):
    """Notes the first pixels of each batch; trains nothing."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.held_out = [], []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch):
        self.optimizers().step()
        self.seen.append((self.current_epoch, batch[0].clone()))

    def validation_step(self, batch):
        self.held_out.append(batch[1].clone())


def fit(tmp_path, ckpt_path=None, every=None, workers=0, flip=True, **options):
    checkpoint = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=every, save_top_k=-1
    )
    options = {"max_epochs": 3, "num_sanity_val_steps": 2, "limit_val_batches": 3, **options}
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[checkpoint],
        default_root_dir=tmp_path, **options,
    )  # fmt: skip
    # streamed where there are workers, so that they do have something to read
    data = ImageDataModule("fake", batch_size=8, image_size=4, fake_length=48, flip=flip, num_workers=workers,
                           in_memory=not workers)  # fmt: skip
    module = Recorder()
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module


def equal(some, others):
    return len(some) == len(others) and all(
        e == f and torch.equal(a, b) for (e, a), (f, b) in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_resumes_with_exactly_the_remaining_batches(tmp_path, workers):
    straight = fit(tmp_path, every=1, workers=workers).seen
    assert [epoch for epoch, _ in straight] == [0] * 6 + [1] * 6 + [2] * 6
    loader = ImageDataModule("fake", batch_size=8, image_size=4, fake_length=48, flip=True).train_dataloader()
    assert equal(straight, [(epoch, batch[0]) for epoch in range(3) for batch in loader])
    for step in (2, 6, 9, 12) if not workers else (9,):
        resumed = fit(tmp_path, ckpt_path=tmp_path / f"step={step}.ckpt").seen
        assert equal(resumed, straight[step:]), step


def test_lightning_resumes_after_epochs_cut_short(tmp_path):
    straight = fit(tmp_path, every=2, limit_train_batches=4).seen
    assert len({batch.sum().item() for _, batch in straight}) == 12  # every epoch has its own order
    for step in (2, 4, 6):
        resumed = fit(tmp_path, ckpt_path=tmp_path / f"step={step}.ckpt", limit_train_batches=4).seen
        assert equal(resumed, straight[step:]), step


def test_lightning_validates_in_order_and_takes_overfit_batches(tmp_path):
    module = fit(tmp_path, max_epochs=1)
    held_out = [n % 10 for n in range(48, 60)]
    assert torch.cat(module.held_out).tolist() == held_out * 2  # the sanity check, then validation
    seen = fit(tmp_path, max_epochs=2, overfit_batches=2, flip=False).seen
    first = ImageDataModule("fake", image_size=4, fake_length=48).source("train").images(torch.arange(16))
    expected = (first.float() / 127.5 - 1).split(8)
    assert equal(seen, [(epoch, batch) for epoch in (0, 1) for batch in expected])
