"""What cannot work is refused before the first step, in a sentence; and looking changes nothing."""

import random

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from lightning.pytorch.plugins import TorchSyncBatchNorm
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from toys import (
    CLASSES,
    LATENT,
    SIDE,
    Batches,
    Discriminator,
    Generator,
    build,
    images,
    loader,
    networks,
    same,
    trainer,
    weights,
)

from lit_gans.data import ImageDataModule
from lit_gans.models import CGAN, GAN, WGANGP, NormClip
from lit_gans.preflight.checks import check_strategy
from lit_gans.regularizers import R1
from lit_gans.strategies import BatchNormSync, GANDDPStrategy


class Answer(nn.Module):
    """A network that answers with what it was told, whatever the input."""

    def __init__(self, answer):
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.zeros(1)), answer

    def forward(self, x, y=None):
        return self.answer(len(x)) + self.weight


class Untrained(GAN):
    """A GAN that must be refused before its first step."""

    def training_step(self, batch, batch_idx):
        raise AssertionError("training began")


def plain(x):
    return DataLoader(TensorDataset(x), 8)


def refused(tmp_path, message, generator=None, discriminator=None, data=None, cls=Untrained, flags=None, **kwargs):
    """Assert that ``fit`` raises before training and that no weight has moved."""
    torch.manual_seed(0)
    classes = kwargs.get("num_classes")
    generator, discriminator = generator or Generator(classes), discriminator or Discriminator(classes)
    before = [p.clone() for p in (*generator.parameters(), *discriminator.parameters())]
    model = cls(generator, discriminator, latent_dim=LATENT, **kwargs)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, max_steps=1, **(flags or {})).fit(model, loader() if data is None else data)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, SIDE, SIDE), (SIDE, SIDE)])
def test_generator_of_wrong_shape_names_both(shape, tmp_path):
    text = ", ".join(map(str, shape))
    refused(
        tmp_path, rf"generator makes \({text}\), the data are \(1, 6, 6\)", Answer(lambda n: torch.zeros(n, *shape))
    )


def test_generator_that_returns_no_tensor_is_named(tmp_path):
    class Pair(Generator):
        def forward(self, z, y=None):
            return super().forward(z), z

    refused(tmp_path, "generator makes tuple, the data are", Pair())


@pytest.mark.parametrize(("value", "span"), [(-200.0, r"\[-200, -200\]"), (255.0, r"\[255, 255\]")])
def test_generator_of_wrong_range(value, span, tmp_path):
    far = Answer(lambda n: torch.full((n, 1, SIDE, SIDE), value))
    refused(tmp_path, rf"generator's images span {span}, the data lie in \[-1, 1\]: end it with a tanh", far)


def test_generator_that_diverges_already_is_refused(tmp_path):
    refused(tmp_path, "generator's images span.*nan", Answer(lambda n: torch.full((n, 1, SIDE, SIDE), torch.nan)))


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 3)])
def test_discriminator_of_wrong_shape(shape, tmp_path):
    wrong = Answer(lambda n: torch.zeros(n, *shape))
    refused(tmp_path, r"discriminator answers \(2, .*\) to 2 images.*\(2,\) or \(2, 1\), or a patch map", None, wrong)


def test_discriminator_that_answers_once_for_the_batch(tmp_path):
    refused(tmp_path, r"discriminator answers \(1, 1\) to 2 images", None, Answer(lambda n: torch.zeros(1, 1)))


def test_networks_that_cannot_take_their_input(tmp_path):
    refused(tmp_path, rf"generator cannot take an input of shape \(2, {LATENT}\)", Generator(latent_dim=LATENT + 1))
    refused(tmp_path, r"discriminator cannot take an input of shape \(2, 1, 6, 6\)", None, Discriminator(side=5))
    unlabelled = Answer(lambda n: torch.zeros(n, 1))
    unlabelled.forward = lambda x: torch.zeros(len(x), 1)
    refused(tmp_path, r"discriminator cannot take.*with labels \(2,\)", None, unlabelled, num_classes=CLASSES)


@pytest.mark.parametrize(("classes", "told"), [(10, "10"), (None, "no labels")])
def test_number_of_classes_in_conflict_with_the_data(classes, told, tmp_path):
    data = ImageDataModule("fake", image_size=SIDE, channels=1, batch_size=4, fake_length=8, fake_classes=classes)
    refused(tmp_path, f"num_classes: the model has 3, the data have {told}", data=data, num_classes=CLASSES)


def test_conditional_model_on_batches_without_labels(tmp_path):
    refused(tmp_path, "num_classes=3, but the batch holds no labels", data=loader(labels=False), num_classes=CLASSES)


@pytest.mark.parametrize("labels", [(0, CLASSES), (-1, 0)])
def test_labels_out_of_range_in_the_batch(labels, tmp_path):
    data = DataLoader(TensorDataset(images(2), torch.tensor(labels)), 2)
    refused(
        tmp_path,
        rf"labels {min(labels)}..{max(labels)} in the training data, but num_classes=3",
        data=data,
        num_classes=3,
    )


def test_labels_with_gaps_are_refused_before_training_or_told(tmp_path):
    gaps = DataLoader(TensorDataset(images(12), torch.tensor([0, 2, 5]).repeat(4)), 4)
    refused(
        tmp_path, r"labels 0\.\.5 in the training data, but num_classes=3: .*num_classes=6", data=gaps, num_classes=3
    )
    generator, discriminator = Generator(6), Discriminator(6)
    model = CGAN(generator, discriminator, latent_dim=LATENT, num_classes=6)
    with pytest.warns(UserWarning, match="of class 1, 3, 4: .* give num_classes=3"):
        trainer(tmp_path, max_steps=3).fit(model, gaps)
    with pytest.raises(ValueError, match="CGAN needs labels: give it num_classes"):
        CGAN(generator, discriminator, latent_dim=LATENT, num_classes=None)


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_label_beyond_the_classes_in_a_later_batch_is_told_in_a_sentence(as_dict, tmp_path):
    labels = torch.tensor([0, 1, 2, 0, 2, 5])
    rows = [{"image": x, "label": y} if as_dict else (x, y) for x, y in zip(images(6), labels, strict=True)]
    model = CGAN(Generator(3), Discriminator(3), latent_dim=LATENT, num_classes=3)
    run = trainer(tmp_path, max_steps=6)
    with pytest.raises(ValueError, match=r"labels 2\.\.5 in the batch, but num_classes=3: number the classes"):
        run.fit(model, DataLoader(rows, 2))
    assert run.global_step == 2


@pytest.mark.parametrize("y", [CLASSES, -1, [0, 1], [[0]], torch.tensor([0, 1, CLASSES])])
def test_labels_that_cannot_be_sampled(y):
    with pytest.raises(ValueError, match=r"y must be in 0\.\.2|y must be one label or 3"):
        build("CGAN").sample(3, y=y, seed=0)


def test_labels_for_a_model_without():
    with pytest.raises(ValueError, match="no classes"):
        build("GAN").sample(3, y=0)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        build("GAN").sample(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_critic": 0}, "n_critic must be at least 1, got 0"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"latent_dim": -3}, "latent_dim must be at least 1, got -3"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        ({"ema_decay": 0.9, "ema_kimg": 10.0}, "give one of them"),
        ({"ema_rampup": 0.05}, "ema_rampup ramps up ema_kimg"),
        ({"g_clip": 0.0}, "NormClip: max_norm must be above 0"),
        ({"d_clip": -1.0}, "NormClip: max_norm must be above 0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        build("GAN", **arguments)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val=0\.5.*g_clip=0\.5 and d_clip=0\.5"),
        ({"accumulate_grad_batches": 4}, r"accumulate_grad_batches=4.*4 times as large.*accumulate=4"),
        ({"precision": "bf16-true"}, r"precision='bf16-true'.*use precision='bf16-mixed'"),
    ],
)
def test_trainer_flags_point_to_our_arguments(flags, message, tmp_path):
    refused(tmp_path, message, flags=flags)


def test_our_arguments_take_the_place_of_the_flags(tmp_path):
    model = build("GAN", g_clip=0.5, d_clip=NormClip(0.5), accumulate=4)
    run = trainer(tmp_path, max_steps=2, precision="bf16-mixed")
    run.fit(model, loader())
    assert run.global_step == 2


def test_images_of_integers(tmp_path):
    data = plain(torch.zeros(4, 1, SIDE, SIDE, dtype=torch.uint8))
    refused(tmp_path, r"torch.uint8 images: convert them to float in \[-1, 1\]", data=data)


@pytest.mark.parametrize(("scale", "shift"), [(127.5, 127.5), (2, 0), (1, -1)])
def test_images_outside_the_range(scale, shift, tmp_path):
    refused(tmp_path, r"images of the batch span .*: scale them to \[-1, 1\]", data=plain(images(8) * scale + shift))


def test_images_in_0_to_1_are_warned_about(tmp_path):
    model = build("GAN")
    with pytest.warns(UserWarning, match=r"are these in \[0, 1\] instead of \[-1, 1\]"):
        trainer(tmp_path, max_steps=1).fit(model, plain(images(8) / 2 + 0.5))


@pytest.mark.parametrize("penalised", [False, True])
def test_plain_ddp_is_made_fit(penalised):
    strategy = DDPStrategy()
    check_strategy(strategy, penalised)
    assert strategy._ddp_kwargs["find_unused_parameters"] is True


def test_gan_ddp_has_no_unused_parameters_to_find():
    strategy = GANDDPStrategy()
    check_strategy(strategy, True)
    assert not strategy._ddp_kwargs.get("find_unused_parameters")


def test_strategies_that_cannot_work():
    class DeepSpeed(DDPStrategy):
        """DeepSpeed's class asks for its package when it is made."""

    with pytest.raises(ValueError, match=r"DDPStrategy\(static_graph=True\).*leave it out"):
        check_strategy(DDPStrategy(static_graph=True), False)
    for sharded in (FSDPStrategy(), ModelParallelStrategy()):
        with pytest.raises(ValueError, match=r"ParallelStrategy shards|FSDPStrategy shards") as refusal:
            check_strategy(sharded, False)
        assert "use strategy='ddp' or strategy='gan_ddp' (docs/sharded.md" in str(refusal.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_gans.preflight.checks.DeepSpeedStrategy", DeepSpeed)
        with pytest.raises(ValueError, match="DeepSpeed cannot train two alternating players"):
            check_strategy(DeepSpeed(), False)


@pytest.mark.parametrize("kind", [DDPStrategy, GANDDPStrategy])
@pytest.mark.parametrize(
    ("device", "penalised", "expected"),
    [("cpu", False, BatchNormSync), ("cuda", True, BatchNormSync), ("cuda", False, TorchSyncBatchNorm)],
)
def test_torchs_synchronised_batch_norm_is_left_where_it_works(kind, device, penalised, expected):
    strategy = kind(parallel_devices=[torch.device(device)], cluster_environment=LightningEnvironment())
    check_strategy(strategy, penalised)
    assert strategy._layer_sync is None
    strategy._layer_sync = TorchSyncBatchNorm()
    check_strategy(strategy, penalised)
    assert type(strategy._layer_sync) is expected


@pytest.mark.parametrize(
    ("name", "kwargs", "penalised"),
    [("GAN", {}, False), ("WGANGP", {}, True), ("GAN", {"regularizers": [R1()]}, True), ("WGAN", {}, False)],
)
def test_the_strategy_hears_of_penalties(name, kwargs, penalised, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr("lit_gans.game.module.check_strategy", lambda strategy, flag: heard.append(flag))
    trainer(tmp_path, max_steps=1).fit(build(name, **kwargs), loader())
    assert heard == [penalised]


# looking changes nothing


class Order(GAN):
    """Records the first pixel of every image it is trained on; with ``blind``, ``setup`` does not look."""

    seen: list
    blind = False

    def setup(self, stage):
        if not self.blind:
            super().setup(stage)

    def training_step(self, batch, batch_idx):
        self.seen.extend(self.unpack_batch(batch)[0][:, 0, 0, 0].tolist())
        super().training_step(batch, batch_idx)


def order(tmp_path, data, blind, **flags):
    random.seed(1)
    np.random.seed(1)
    model = Order(*networks("GAN", seed=3), latent_dim=LATENT, n_critic=2)
    model.seen, model.blind = [], blind
    torch.manual_seed(3)
    trainer(tmp_path, max_epochs=2, **flags).fit(model, data)
    return model.seen, torch.rand(3).tolist(), random.random(), np.random.rand()


def test_a_shuffled_loader_keeps_its_order_and_the_random_states_theirs(tmp_path):
    def once(blind):
        return order(tmp_path, DataLoader(TensorDataset(images(24)), 8, shuffle=True), blind)

    blind, looking = once(True), once(False)
    assert blind == looking
    assert len(blind[0]) == 48
    assert sorted(blind[0][:24]) == sorted(images(24)[:, 0, 0, 0].tolist())


def test_a_generator_of_ones_own_is_not_advanced(tmp_path):
    def once(blind):
        own = torch.Generator().manual_seed(7)
        data = DataLoader(TensorDataset(images(24)), 8, shuffle=True, generator=own)
        return order(tmp_path, data, blind), own.get_state().tolist()

    assert once(True) == once(False)


def test_data_that_are_augmented_at_random_are_not_disturbed(tmp_path):
    class Augmented(TensorDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0] * torch.rand(()) * random.random() * np.random.rand()

    def once(blind):
        return order(tmp_path, DataLoader(Augmented(images(24)), 8, shuffle=True), blind)

    assert once(True) == once(False)


def test_our_own_loader_is_not_advanced(tmp_path):
    def once(blind):
        data = ImageDataModule("fake", image_size=SIDE, channels=1, batch_size=8, fake_length=24, flip=True)
        return order(tmp_path, data, blind)

    assert once(True) == once(False)


@pytest.mark.parametrize("wrap", [iter, lambda batches: (batch for batch in batches)], ids=["iterator", "generator"])
def test_a_one_shot_iterator_loses_no_batch(wrap, tmp_path):
    x = images(24)
    seen, *_ = order(tmp_path, wrap(list(x.split(8))), blind=False)
    assert seen == x[:, 0, 0, 0].tolist()


def test_an_iterable_data_set_that_can_be_read_once_loses_no_batch(tmp_path):
    class Stream(IterableDataset):
        def __init__(self):
            self.source = iter(images(24))

        def __iter__(self):
            return self.source

    seen, *_ = order(tmp_path, DataLoader(Stream(), 8), blind=False)
    assert seen == images(24)[:, 0, 0, 0].tolist()


def test_batch_norm_statistics_and_modes_are_left_alone(tmp_path):
    class Watched(GAN):
        def setup(self, stage):
            self.generator[1].eval()
            before = [b.clone() for b in self.buffers()]
            super().setup(stage)
            assert all(torch.equal(a, b) for a, b in zip(before, self.buffers(), strict=True))
            assert not self.generator[1].training
            assert self.generator[0].training

    generator = nn.Sequential(nn.Linear(LATENT, 36), nn.BatchNorm1d(36), nn.Tanh(), nn.Unflatten(1, (1, 6, 6)))
    trainer(tmp_path, max_steps=1).fit(Watched(generator, Discriminator(), latent_dim=LATENT), loader())


def test_a_foreign_data_module_is_looked_at_too(tmp_path):
    class Foreign(LightningDataModule):
        def train_dataloader(self):
            return loader()

    refused(tmp_path, "generator makes", Generator(side=5), data=Foreign())
    refused(tmp_path, "generator makes", Generator(side=5), data=Foreign(), cls=WGANGP)


def test_a_loader_that_cannot_be_looked_into_is_checked_at_its_first_batch(tmp_path):
    model = build("GAN")
    before = weights(model)
    with pytest.raises(ValueError, match=r"images of the batch span"):
        trainer(tmp_path, max_steps=3).fit(model, Batches(images(4) * 9, images(4)))
    assert same(before, weights(model))


def test_training_again_in_double_precision(tmp_path):
    model = build("GAN")
    for _ in range(2):
        run = trainer(tmp_path, max_steps=2, precision="64-true")
        run.fit(model, loader())
        assert run.global_step == 2


def test_labels_are_compared_with_the_data_that_are_trained_on(tmp_path):
    run = trainer(tmp_path, max_epochs=1)
    seven = ImageDataModule("fake", image_size=SIDE, channels=1, fake_length=16, fake_classes=7, batch_size=4)
    run.fit(build("GAN"), seven)
    run.fit(build("CGAN"), loader())  # of three classes
    assert run.state.finished
