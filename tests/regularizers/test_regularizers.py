"""Each add-on in closed form, and what all of them promise."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from toys import LATENT, Batches, Point, Slope, build, images, loader, networks, same, trainer, weights

from lit_gans.functional import Batch, gamma_for, input_gradient_norm, off_diagonal_gram, perturb
from lit_gans.guard import ExplosionDetector
from lit_gans.models import GAN
from lit_gans.networks import MLPDiscriminator, MLPGenerator
from lit_gans.regularizers import (
    R1,
    R2,
    Consistency,
    GradientPenalty,
    LatentDiversity,
    LeCam,
    Orthogonal,
    PathLength,
    Regularizer,
)
from lit_gans.regularizers.consistency import flip_and_shift

ADD_ONS = {
    "R1": partial(R1, 1.0),
    "R2": partial(R2, 1.0, every=2),
    "GradientPenalty": GradientPenalty,
    "one-sided": partial(GradientPenalty, 5.0, one_sided=True, at="perturbed"),
    "LeCam": LeCam,
    "CR": Consistency,
    "bCR": partial(Consistency, fake=1.0),
    "zCR": partial(Consistency, 5.0, real=0.0, latent=1.0),
    "ICR": partial(Consistency, fake=1.0, latent=2.0),
    "LatentDiversity": LatentDiversity,
    "PathLength": partial(PathLength, every=2),
    "Orthogonal": partial(Orthogonal, 1e-2),
    "Orthogonal of D": partial(Orthogonal, 1e-2, player="discriminator"),
}
each = pytest.mark.parametrize("name", ADD_ONS)


class Linear(nn.Module):
    """D(x) = w · x of slope |w|."""

    def __init__(self, slope=3.0, size=36):
        super().__init__()
        torch.manual_seed(0)
        w = torch.randn(size)
        self.w = nn.Parameter(slope * w / w.norm())

    def forward(self, x, y=None):
        return x.flatten(1) @ self.w


def linear(slope=3.0, **kwargs):
    return GAN(networks("GAN")[0], Linear(slope), latent_dim=LATENT, **kwargs)


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (R1(1.0), 9 / 2),
        (R2(1.0), 9 / 2),
        (GradientPenalty(), 4.0),
        (GradientPenalty(center=0.0, at="real"), 9.0),
        (GradientPenalty(center=5.0, at="fake"), 4.0),
        (GradientPenalty(center=5.0, one_sided=True), 0.0),
        (GradientPenalty(center=2.0, one_sided=True, at="perturbed"), 1.0),
    ],
)
def test_slopes_of_a_linear_critic(penalty, expected):
    value = penalty(linear(), images(4), images(4, seed=2))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert value.requires_grad


def test_each_place_is_where_it_says():
    class Seen(nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return x.flatten(1).square().sum(1)

    real, fake = images(6), images(6, seed=2)
    model = GAN(networks("GAN")[0], Seen(), latent_dim=LATENT)
    for at in ("real", "fake", "perturbed", "interpolated"):
        seen = []
        GradientPenalty(at=at, noise=0.1)(model, real, fake)
        (x,) = seen
        if at in ("real", "fake"):
            assert torch.equal(x, real if at == "real" else fake)
        elif at == "perturbed":
            assert (x - real).std().item() == pytest.approx(0.1, rel=0.2)
        else:
            share = ((x - fake) / (real - fake)).flatten(1)
            assert (share.std(1) < 1e-3).all()
    assert torch.equal(perturb(real, 0.0), real)


def test_labels_of_generated_images_go_with_them():
    class Picky(nn.Module):
        def forward(self, x, y):
            return (1.0 + y) * x.flatten(1).sum(1)

    model = GAN(build("CGAN").generator, Picky(), num_classes=3, latent_dim=LATENT)
    x, y, y_fake = images(4), torch.zeros(4), torch.full((4,), 2.0)
    slopes = [penalty(model, Batch(x, y), Batch(x, y_fake)).item() for penalty in (R1(1.0), R2(1.0))]
    assert slopes == pytest.approx([36 / 2, 9 * 36 / 2])


def test_gamma_by_resolution_and_batch():
    assert gamma_for(torch.zeros(4, 3, 256, 256), 32) == pytest.approx(0.0002 * 256**2 / 32)
    model, x = linear(), images(8)
    assert R1().weight_of(model, x) == pytest.approx(0.0002 * 36 / 8)
    model.batch_images = 64  # of all processes
    assert R1().weight_of(model, x) == pytest.approx(0.0002 * 36 / 64)
    assert R1(3.0).weight_of(model, x) == R2(3.0).weight_of(model, x) == 3.0


def test_lecam_pulls_each_kind_to_the_anchor_of_the_other():
    model, penalty = linear(), LeCam(decay=0.9)
    real, fake = images(8), images(8, seed=2)
    of_real, of_fake = model.discriminator(real).detach(), model.discriminator(fake).detach()
    anchors = torch.stack([of_real.mean(), of_fake.mean()])
    model.take_turn("discriminator", 0)
    expected = (of_real - anchors[1]).square().mean() + (of_fake - anchors[0]).square().mean()
    assert penalty(model, real, fake).item() == pytest.approx(expected.item(), rel=1e-5)
    moved = 0.9 * anchors + 0.1 * anchors.flip(0)
    penalty(model, fake, real)
    assert torch.allclose(penalty.anchors, moved)
    model.take_turn("discriminator", None)  # validation moves nothing
    penalty(model, real, real)
    assert torch.allclose(penalty.anchors, moved)


def test_lecam_can_begin_later_and_leave_the_near_side_alone():
    """As in its published code: relu(D(x) - α_F)² and relu(α_R - D(G(z)))², after so many updates."""
    model, penalty = linear(), LeCam(start=2, rectify=True)
    real, fake = images(8), images(8, seed=2)
    of_real, of_fake = model.discriminator(real).detach(), model.discriminator(fake).detach()
    above = (of_real - of_fake.mean()).clamp(min=0).square().mean()
    below = (of_real.mean() - of_fake).clamp(min=0).square().mean()
    for turn in range(3):
        model.take_turn("discriminator", turn)
        value = penalty(model, real, fake).item()
        assert value == pytest.approx((above + below).item() if turn == 2 else 0.0, rel=1e-5)
        assert torch.allclose(penalty.anchors, torch.stack([of_real.mean(), of_fake.mean()]))
    with pytest.raises(ValueError, match="LeCam: start must not be negative, got -1"):
        LeCam(start=-1)


def test_consistency_is_the_mean_square_of_what_a_change_changes():
    model, x, z = linear(), images(16), torch.randn(16, LATENT)
    fake = model.generate(z).detach()

    def flip(images):
        return images.flip(3)

    def distance(x):
        return (model.discriminator(x) - model.discriminator(flip(x))).square().mean().item()

    cr, bcr = Consistency(augment=flip), Consistency(augment=flip, fake=0.5)
    assert cr(model, x, fake).item() == pytest.approx(distance(x), rel=1e-5)
    assert bcr(model, x, fake).item() == pytest.approx(distance(x) + 0.5 * distance(fake), rel=1e-5)
    model.discriminator.w.data.zero_()
    assert cr(model, x, fake).item() == 0


def test_neighbouring_latents_in_closed_form():
    """G(z) = Az, D(x) = w · x: the terms are σ²|Aᵀw|² and, over the pixels, σ²|A|²/P in expectation."""

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(36, LATENT))

        def forward(self, z):
            return (z @ self.weight.T).view(-1, 1, 6, 6)

    model = linear()
    model.generator = Generator()
    x, a, w = torch.zeros(20_000, 1, 6, 6), model.generator.weight, model.discriminator.w
    zcr = Consistency(real=0.0, latent=1.0, sigma=0.3)(model, x, x).item()
    assert zcr == pytest.approx(0.09 * (a.T @ w).square().sum().item(), rel=0.05)
    diversity = LatentDiversity(sigma=0.3)(model, x, x).item()
    assert diversity == pytest.approx(-0.09 * a.square().sum().item() / 36, rel=0.05)


def test_flip_and_shift_moves_whole_images():
    torch.manual_seed(0)
    x = torch.arange(36.0).view(1, 1, 6, 6).repeat(400, 2, 1, 1)
    moved = flip_and_shift(x, pixels=1)
    padded = nn.functional.pad(x[:1], (1, 1, 1, 1), mode="replicate")[0]
    found = set()
    for image in moved:
        candidates = [
            (flip, dy, dx)
            for flip in (False, True)
            for dy in range(3)
            for dx in range(3)
            if torch.equal(image.flip(2) if flip else image, padded[:, dy : dy + 6, dx : dx + 6])
        ]
        assert candidates
        found.add(candidates[0])
    assert len(found) == 18


def test_orthogonal_is_the_gram_matrix_without_its_diagonal():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Conv2d(1, 2, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]))
        network[2].weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 5.0]]).view(2, 1, 2, 2))
    # products of rows: 0, 3, 8 and, of the convolution, 0
    assert off_diagonal_gram(network).item() == 2 * (9 + 64)
    assert Orthogonal(player="discriminator").player == "discriminator"


def test_path_length_follows_its_mean():
    model, penalty = build("GAN"), PathLength(decay=0.5, shrink=1)
    model.take_turn("generator", 0)
    first = penalty(model, images(8), images(8))
    mean = penalty.mean_length.item()
    assert first.item() >= mean**2  # the mean of (l - m/2)² is (m/2)² and the variance, with mean_length = m/2
    model.take_turn("generator", None)
    penalty(model, images(8), images(8))
    assert penalty.mean_length.item() == mean


@each
def test_add_ons_train_resume_bit_by_bit_and_come_back(name, tmp_path):
    def fit(steps, ckpt=None):
        torch.manual_seed(0)
        shape = {"image_size": 6, "channels": 1, "widths": (16,)}
        networks = MLPGenerator(latent_dim=LATENT, **shape), MLPDiscriminator(**shape, activation="silu")
        model = GAN(*networks, latent_dim=LATENT, n_critic=2, regularizers=[ADD_ONS[name]()])
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
        run = trainer(tmp_path, max_steps=steps, callbacks=[saver], enable_checkpointing=True)
        run.fit(model, loader(batch_size=8), ckpt_path=ckpt, weights_only=True)
        return model

    whole, resumed = fit(12), fit(12, tmp_path / "step=6.ckpt")
    assert same(weights(whole), weights(resumed))
    loaded = GAN.load_from_checkpoint(tmp_path / "step=12.ckpt")
    assert same(weights(loaded), weights(whole))
    (before,), (after,) = whole.regularizers, loaded.regularizers
    assert type(before) is type(after)
    assert (before.weight, before.every, before.player) == (after.weight, after.every, after.player)
    assert before.init_args.items() <= after.init_args.items()
    assert torch.isfinite(whole.sample(3, seed=0)).all()


@each
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_add_ons_in_each_precision(name, precision, tmp_path):
    model = build("GAN", regularizers=[ADD_ONS[name]()])
    trainer(tmp_path, max_steps=6, precision=precision).fit(model, loader())
    assert all(torch.isfinite(value).all() for value in weights(model).values())


@each
def test_add_ons_go_with_foreign_networks_and_come_back(name, tmp_path):
    run = trainer(tmp_path, max_steps=3)
    model = build("SNGAN", regularizers=[ADD_ONS[name]()])
    run.fit(model, loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    generator, discriminator = networks("SNGAN", seed=5)
    loaded = type(model).load_from_checkpoint(tmp_path / "x.ckpt", generator=generator, discriminator=discriminator)
    assert same(weights(loaded), weights(model))
    assert [type(r) for r in loaded.regularizers] == [type(r) for r in model.regularizers]


@pytest.mark.parametrize(
    "variant", ["GAN", "ACGAN", "InfoGAN", "EBGAN", "BEGAN", "PacGAN", "ReACGAN", "SSGAN", "StyleGAN2"]
)
def test_all_add_ons_at_once_with_every_kind_of_discriminator(variant, tmp_path):
    names = ["R1", "R2", "one-sided", "LeCam", "ICR", "LatentDiversity", "PathLength", "Orthogonal"]
    model = build(variant, regularizers=[ADD_ONS[name]() for name in names])
    if variant == "StyleGAN2":
        model = build(variant, regularizers=[LeCam(), Consistency()])
    trainer(tmp_path, max_steps=4).fit(model, loader())
    assert all(torch.isfinite(value).all() for value in weights(model).values())


def test_bad_arguments_are_named():
    cases = [
        (lambda: R1(1.0, every=0), "R1: every must be at least 1"),
        (lambda: R2(1.0, every=1.5), "R2: every must be at least 1, a whole number, got 1.5"),
        (lambda: LeCam(-1), "LeCam: weight must not be negative"),
        (lambda: LeCam(decay=1.0), "LeCam: decay must be in"),
        (lambda: GradientPenalty(at="here"), "at='here' is no place; choose one of fake, interpolated"),
        (lambda: GradientPenalty(center=0.0, one_sided=True), "leave it out"),
        (lambda: GradientPenalty(noise=-1), "must not be negative"),
        (lambda: Consistency(real=0.0), "one of them above 0"),
        (lambda: PathLength(shrink=0), "shrink must be at least 1"),
        (lambda: Orthogonal(player="both"), "player must be discriminator or generator"),
        (lambda: build("GAN", regularizers=[R1(1.0), R1(2.0)]), "two loss terms are called 'r1'"),
    ]
    for make, words in cases:
        with pytest.raises(ValueError, match=words):
            make()


def test_one_of_ones_own_is_kept_with_its_arguments(tmp_path):
    assert R1(2.0, every=4).init_args == {"weight": 2.0, "every": 4}
    assert Consistency(fake=1.0).init_args == {"fake": 1.0}
    assert Regularizer(1.0).init_args == {"weight": 1.0}
    slope = Slope(psi=2.0)
    model = GAN(Point(), slope, latent_dim=1, regularizers=[R1(4.0)])
    trainer(tmp_path, max_steps=2).fit(model, Batches(*[torch.zeros(4, 1)] * 2))
    assert input_gradient_norm(slope, torch.zeros(2, 1)).max() < 2
    assert math.isfinite(model.discriminator.psi.item())


def test_what_has_no_plain_form_is_named_when_a_checkpoint_is_loaded(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(build("GAN", regularizers=[Consistency(augment=lambda x: x.flip(3)), R1(1.0)]), loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    generator, discriminator = networks("GAN")
    with pytest.warns(UserWarning, match=r"written with regularizers that have no form .*; give regularizers=\.\.\."):
        loaded = GAN.load_from_checkpoint(tmp_path / "x.ckpt", generator=generator, discriminator=discriminator)
    assert len(loaded.regularizers) == 0


@each
def test_a_batch_in_parts_is_the_same_or_refused(name, tmp_path):
    if ADD_ONS[name]().couples_samples:
        with pytest.raises(ValueError, match=r"accumulate=2: (LeCam|PathLength) compares the samples of a batch"):
            build("GAN", regularizers=[ADD_ONS[name]()], accumulate=2)
    else:
        trainer(tmp_path, max_steps=2).fit(build("GAN", regularizers=[ADD_ONS[name]()], accumulate=2), loader())


@each
def test_the_guard_takes_them_for_healthy(name, tmp_path):
    model = build("GAN", regularizers=[ADD_ONS[name]()])
    run = trainer(tmp_path, max_steps=30, callbacks=[ExplosionDetector(action="stop", warmup=10)])
    run.fit(model, loader())
    assert run.global_step == 30


def test_orthogonality_is_of_the_learnt_weights_whatever_their_norm():
    model = build("SNGAN")
    layer = model.discriminator.body[0]
    before = off_diagonal_gram(model.discriminator).item()
    with torch.no_grad():
        for each_layer in (layer, model.discriminator.body[2]):
            each_layer.parametrizations.weight.original.mul_(3)
    assert off_diagonal_gram(model.discriminator).item() == pytest.approx(81 * before, rel=1e-4)
    bare = GAN(Point(), Slope(), latent_dim=1)
    with pytest.raises(ValueError, match="the generator has no linear or convolutional layer"):
        Orthogonal()(bare, torch.zeros(2, 1), torch.zeros(2, 1))
    wide = nn.Linear(3, 500, bias=False)  # more filters than inputs: the other Gram matrix, the same number
    gram = wide.weight @ wide.weight.T
    expected = (gram * (1 - torch.eye(500))).square().sum().item()
    assert off_diagonal_gram(wide).item() == pytest.approx(expected, rel=1e-4)


def test_neighbours_share_what_else_the_generator_draws():
    model = build("GAN")
    model.generator = nn.Sequential(nn.Dropout(0.5), model.generator).train()
    model.reseed(0)
    assert LatentDiversity(sigma=0.0)(model, images(8), images(8)).item() == 0
