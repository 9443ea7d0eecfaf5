"""What each paper of the zoo claims for itself, as far as a small game shows it."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import nn
from toys import (
    CLASSES,
    HEADS,
    LATENT,
    MODELS,
    Batches,
    Discriminator,
    Generator,
    Point,
    Slope,
    build,
    images,
    labels,
    loader,
    same,
    trainer,
    weights,
)

from lit_gans.functional import Batch, mix_seed, path_lengths
from lit_gans.models import DRAGAN, GAN, LSGAN, R3GAN, WGANGP, WGANLP, HingeGAN, MinimaxGAN, PacGAN, StyleGAN2
from lit_gans.models.biggan import truncated_normal
from lit_gans.models.ebgan import pulling_away
from lit_gans.models.reacgan import d2d_cross_entropy
from lit_gans.networks import (
    BigGANGenerator,
    ResNetDiscriminator,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)


def pull(model, x):
    """The gradient of the generator's loss at one generated sample."""
    x = torch.tensor([[x]], requires_grad=True)
    (gradient,) = torch.autograd.grad(sum(model.generator_loss(torch.zeros(1, 1), x).values()), x)
    return gradient.item()


@pytest.mark.parametrize("logit", [-2.0, -6.0, -12.0])
def test_the_minimax_generators_gradient_vanishes_as_d_of_fake_and_the_other_does_not(logit):
    certainty = 1 / (1 + math.exp(-logit))
    slope = Slope(psi=1.0)
    assert pull(MinimaxGAN(Point(), slope), logit) == pytest.approx(-certainty, rel=1e-4)
    assert pull(GAN(Point(), slope), logit) == pytest.approx(-(1 - certainty), rel=1e-4)


def test_lsgan_moves_samples_that_are_on_the_right_side_but_far():
    far = 8.0  # D of a generated sample, on the side of real ones
    assert pull(LSGAN(Point(), Slope(psi=1.0)), far) == pytest.approx(far - 1)
    assert abs(pull(GAN(Point(), Slope(psi=1.0)), far)) < 1e-3


def test_hinge_gan_has_no_gradient_beyond_the_margin():
    model, psi = HingeGAN(Point(), Slope(psi=2.0)), None
    psi = model.discriminator.psi
    for inside in (False, True):
        x = torch.full((3, 1), 0.25 if inside else 0.75)  # D = ±0.5, ±1.5
        loss = sum(model.discriminator_loss(x, -x).values())
        (gradient,) = torch.autograd.grad(loss, psi)
        assert gradient.item() == pytest.approx(-0.5 if inside else 0.0)


@pytest.mark.parametrize(("psi", "expected"), [(0.4, 0.0), (1.0, 0.0), (1.5, 2.5)])
def test_wgan_lp_is_one_sided(psi, expected):
    def penalty(cls, key):
        return cls(Point(), Slope(psi=psi)).discriminator_loss(torch.randn(4, 1), torch.randn(4, 1))[key].item()

    assert penalty(WGANLP, "lipschitz_penalty") == pytest.approx(expected)
    assert penalty(WGANGP, "gradient_penalty") == pytest.approx(10 * (psi - 1) ** 2, abs=1e-6)


def test_dragan_looks_at_slopes_about_real_points_only():
    class Spy(nn.Module):
        def forward(self, x):
            if x.requires_grad:
                seen.append(x.detach())
            return x.square().sum(1, keepdim=True)

    seen, real = [], torch.zeros(2000, 3)
    model = DRAGAN(Point(), Spy(), noise=0.3)
    terms = model.discriminator_loss(real, torch.full((2000, 3), 50.0))
    (points,) = seen
    assert points.std().item() == pytest.approx(0.3, rel=0.05)
    assert points.abs().max() < 2
    slope = 2 * points.norm(dim=1)  # of |x|²
    assert terms["gradient_penalty"].item() == pytest.approx(10 * (slope - 1).square().mean().item(), rel=1e-4)


def test_ragans_generator_learns_from_the_real_term_too():
    model = build("RaGAN")
    fake = images(8, seed=3).requires_grad_()
    terms = model.generator_loss(images(8), fake)
    for name in ("real", "fake"):
        (gradient,) = torch.autograd.grad(terms[name], fake, retain_graph=True)
        assert gradient.abs().max() > 1e-5, name


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_r3gan_converges_where_its_loss_alone_circles(gamma, tmp_path):
    """Proposition 2 and section 2.3: Dirac-GAN, step for step along the vector field."""
    rate, steps, theta, psi = 0.1, 500, 0.7, 0.0
    for _ in range(steps):
        psi -= rate * (1 / (1 + math.exp(-psi * theta)) * theta + 2 * gamma * psi)
        theta += rate * psi / (1 + math.exp(psi * theta))
    sgd = partial(torch.optim.SGD, lr=rate)
    model = R3GAN(Point(), Slope(psi=0.0), gamma=gamma, latent_dim=1, g_optimizer=sgd, d_optimizer=sgd)
    trainer(tmp_path, max_steps=steps).fit(model, Batches(*[torch.zeros(4, 1)] * steps))
    assert [model.generator.theta.item(), model.discriminator.psi.item()] == pytest.approx([theta, psi], abs=1e-3)
    assert (math.hypot(theta, psi) < 0.01) == (gamma > 0)


def test_ebgan_leaves_energies_beyond_the_margin_alone():
    model = build("EBGAN", margin=0.5)
    fake = images(8, seed=2) * 3  # far from what the autoencoder draws
    energies = model.discriminate(fake)
    assert energies.min() > 0.5
    assert model.discriminator_loss(images(8), fake)["fake"].item() == 0
    model.margin = 100.0
    assert model.discriminator_loss(images(8), fake)["fake"].item() == pytest.approx(
        100 - energies.mean().item(), rel=1e-5
    )


def test_pulling_away_is_0_for_orthogonal_codes_and_1_for_equal_ones():
    equal, orthogonal = torch.ones(4, 3), torch.eye(4) * torch.tensor([[1.0], [5.0], [0.1], [2.0]])
    assert pulling_away(equal, equal).item() == pytest.approx(1)
    assert pulling_away(orthogonal, orthogonal).item() == pytest.approx(0)
    half = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert pulling_away(half, half).item() == pytest.approx(0.5)
    assert pulling_away(-half[:1], half[:1]).item() == 0  # one code has no other


def test_began_balances_by_its_control_law(tmp_path):
    class Note(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            ks.append(module.k.item())
            globals_.append(float(module.measured["m_global"]))

    ks, globals_, losses = [], [], []
    model = build("BEGAN", gamma=0.7, k_lr=0.05)
    log_step = model.log_step

    def noting(terms, step):
        losses.append((float(terms["discriminator"]["real"]), float(terms["generator"]["adversarial"])))
        log_step(terms, step)

    model.log_step = noting
    trainer(tmp_path, max_steps=30, callbacks=[Note()]).fit(model, loader())
    k = 0.0
    for (real, fake), ours, m_global in zip(losses, ks, globals_, strict=True):
        gap = 0.7 * real - fake
        k = min(max(k + 0.05 * gap, 0.0), 1.0)
        assert ours == pytest.approx(k, abs=1e-5)
        assert m_global == pytest.approx(real + abs(gap), abs=1e-5)
    assert "k" in model.state_dict()
    assert len(set(ks)) > 20


def test_pacgans_discriminator_sees_m_samples():
    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1).sum(1)

    seen, x = [], images(6)
    model = PacGAN(Point(), Spy(), pack=3)
    assert model.discriminate(x).shape == (2,)
    assert torch.equal(seen[0], torch.stack([torch.cat(list(x[:3])), torch.cat(list(x[3:]))]))
    with pytest.raises(ValueError, match="pack=3 does not divide the 4 samples"):
        model.discriminate(x[:4])
    with pytest.raises(ValueError, match="leave num_classes out"):
        PacGAN(Point(), Spy(), num_classes=3)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_unrolled_gradient_goes_through_the_steps_ahead(steps):
    model = build("UnrolledGAN", steps=steps, d_lr=0.05).double()
    real, fake = images(4).double(), images(4, seed=2).double().requires_grad_()

    def loss(x):
        return sum(model.generator_loss(real, x).values())

    (gradient,) = torch.autograd.grad(loss(fake), fake)
    step = torch.zeros_like(fake)
    step[1, 0, 2, 3] = 1e-5
    numeric = (loss(fake + step) - loss(fake - step)).item() / 2e-5
    assert gradient[1, 0, 2, 3].item() == pytest.approx(numeric, rel=1e-5)
    # what the discriminator ahead makes of samples that do not move it differs
    state = {key: value.clone() for key, value in model.discriminator.state_dict().items()}
    still = build("UnrolledGAN", steps=0).double()
    (plain,) = torch.autograd.grad(sum(still.generator_loss(real, fake).values()), fake)
    assert (gradient - plain).abs().max() > 1e-4
    assert all(torch.equal(value, state[key]) for key, value in model.discriminator.state_dict().items())
    assert model._ahead is None


def test_an_accurate_head_lowers_both_losses_of_acgan():
    class Head(nn.Module):
        def __init__(self, sure):
            super().__init__()
            self.sure = sure

        def forward(self, x):
            return x.flatten(1).mean(1), self.sure * F.one_hot(x[:, 0, 0, 0].long(), 3).float()

    y = torch.tensor([0, 1, 2, 1])
    x = y.float()[:, None, None, None].expand(4, 1, 2, 2)
    losses = {}
    for sure in (0.0, 5.0):
        model = build("ACGAN")
        model.discriminator = Head(sure)
        d_terms, g_terms = (
            model.discriminator_loss(Batch(x, y), Batch(x, y)),
            model.generator_loss(Batch(x, y), Batch(x, y)),
        )
        losses[sure] = [d_terms["real_class"].item(), d_terms["fake_class"].item(), g_terms["fake_class"].item()]
    assert losses[0.0] == pytest.approx([math.log(3)] * 3)
    assert losses[5.0] == pytest.approx([math.log(1 + 2 * math.exp(-5))] * 3, rel=1e-4)


def test_the_projection_discriminator_is_linear_in_the_class_embedding():
    torch.manual_seed(0)
    network = ResNetDiscriminator(image_size=8, channels=1, width=8, num_classes=3)
    with torch.no_grad():
        network.label.weight[2] = 2 * network.label.weight[0] - 3 * network.label.weight[1]
        x = images(5, side=8)
        one, two, both = (network(x, torch.full((5,), k)) for k in range(3))
        network.label.weight.zero_()
        none = network(x, torch.zeros(5, dtype=torch.int64))
    assert torch.allclose(both - none, 2 * (one - none) - 3 * (two - none), atol=1e-5)


def test_infogans_codes_can_be_read_from_its_images(tmp_path):
    class Note(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            bounds.append(float(module.measured["mutual_information"]))

    bounds = []
    model = build("InfoGAN", g_lr=5e-3, d_lr=2e-3)
    trainer(tmp_path, max_steps=400, callbacks=[Note()]).fit(model, loader(batch_size=16))
    assert sum(bounds[:10]) / 10 < sum(bounds[-10:]) / 10 - 0.5
    assert max(bounds) <= model.entropy + 1.5  # in a batch the continuous codes may be dense by chance
    _, codes = model.draw_inputs(300, seed=1)
    with torch.no_grad():
        q = model.discriminate(model.sample(300, y=codes, seed=1))[1]
    assert (q[:, :3].argmax(1) == codes[:, :3].argmax(1)).float().mean() > 0.95
    assert torch.corrcoef(torch.stack([q[:, 3], codes[:, 3]]))[0, 1] > 0.9


def test_ssgan_rotates_real_images_for_d_and_generated_ones_for_g():
    model = build("SSGAN")
    real, fake = images(8), images(8, seed=2)

    def terms(player, real, fake):
        model.rng.manual_seed(0)
        loss = model.discriminator_loss if player == "d" else model.generator_loss
        model.eval()  # no power iteration in between
        return loss(real, fake)["rotation"].item()

    assert terms("d", real, fake) == terms("d", real, -fake) != terms("d", -real, fake)
    assert terms("g", real, fake) == terms("g", -real, fake) != terms("g", real, -fake)

    class Compass(nn.Module):
        """Knows where the bright corner is."""

        def forward(self, x):
            corners = torch.stack([x[:, 0, 0, 0], x[:, 0, -1, 0], x[:, 0, -1, -1], x[:, 0, 0, -1]], 1)
            return x.flatten(1).mean(1), 20 * corners

    model.discriminator = Compass()
    x = torch.zeros(6, 1, 4, 4)
    x[:, 0, 0, 0] = 1
    assert model.rotation_loss(x).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["SAGAN", "BigGAN", "ReACGAN"])
def test_both_networks_are_spectrally_normalised_but_for_the_generators_embeddings(name):
    torch.manual_seed(0)
    networks = {"ReACGAN": (CLASSES, None), "SAGAN": (CLASSES, CLASSES), "BigGAN": (CLASSES, CLASSES)}[name]
    arguments = {"latent_dim": LATENT, "num_classes": CLASSES, **({"embed_dim": 4} if name == "ReACGAN" else {})}
    model = MODELS[name](Generator(networks[0]), Discriminator(networks[1], head=HEADS.get(name)), **arguments)
    assert list(dict(model.generator.embed.named_parameters())) == ["weight"]
    for network, kinds in ((model.generator, (nn.Linear,)), (model.discriminator, (nn.Linear, nn.Embedding))):
        layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
        assert layers
        network.train()
        for _ in range(100):
            [layer.weight for layer in layers]
        network.eval()
        for layer in layers:
            assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=5e-3)


def test_truncated_latents_are_truncated_normal():
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    for bound in (0.5, 1.0, 2.0):
        t = truncated_normal(z, bound)
        density = math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
        mass = math.erf(bound / math.sqrt(2))
        assert t.abs().max() <= bound
        assert t.mean().item() == pytest.approx(0, abs=0.01)
        assert t.var().item() == pytest.approx(1 - 2 * bound * density / mass, rel=0.01)
    with pytest.raises(ValueError, match="truncation must be above 0, got 0"):
        truncated_normal(z, 0)


def test_biggans_truncation_lowers_spread_and_standing_statistics_fit_it():
    torch.manual_seed(0)
    generator = BigGANGenerator(image_size=8, channels=1, width=4, latent_dim=12, attention_size=None)
    model = build("BigGAN", ema_decay=None)
    model.generator, model.latent_dim = generator, 12
    whole, narrow = model.sample(200, seed=0), model.sample(200, seed=0, truncation=0.3)
    assert narrow.std(0).mean() < 0.6 * whole.std(0).mean()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    standing = model.standing_statistics(truncation=0.3, batches=4, batch_size=32)
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    assert not standing.training
    first = next(m for m in standing.modules() if isinstance(m, nn.BatchNorm2d))
    seen = []
    first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        standing(truncated_normal(model.draw_inputs(128, seed=mix_seed(-1))[0], 0.3))
    assert torch.allclose(first.running_mean, seen[0].mean((0, 2, 3)), atol=1e-4)
    with pytest.raises(ValueError, match="GAN knows no truncation"):
        build("GAN").sample(2, truncation=0.5)


def test_an_average_with_batch_norm_is_used_and_saved_with_statistics_of_its_own(tmp_path):
    """Means over the same passes for every use, from other weights than those whose statistics were at hand."""
    networks = Generator(norm=True), Discriminator()
    model = GAN(*networks, latent_dim=LATENT, ema_decay=0.9, g_lr=0.01)
    run = trainer(tmp_path, max_steps=12, limit_val_batches=0)
    run.fit(model, loader())
    norm, live = (next(m for m in g.modules() if isinstance(m, nn.BatchNorm1d)) for g in (model.g_ema, model.generator))
    assert torch.equal(norm.running_mean, live.running_mean)  # as copied
    hidden = model.g_ema.body[0]
    model.sample(1, seed=0)
    batches = [hidden(model.draw_inputs(64, seed=mix_seed(-1), start=64 * k)[0]) for k in range(20)]
    assert torch.allclose(norm.running_mean, torch.stack([x.mean(0) for x in batches]).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([x.var(0) for x in batches]).mean(0), atol=1e-6)
    assert not torch.allclose(norm.running_mean, live.running_mean, atol=1e-3)
    samples = model.sample(4, seed=0)
    for clean in (True, False):  # whoever saves need not have sampled before
        model._average_moved = not clean
        run.save_checkpoint(tmp_path / "model.ckpt")
        saved = torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"]
        assert torch.equal(saved["g_ema.body.1.running_mean"], norm.running_mean)
        loaded = GAN.load_from_checkpoint(
            tmp_path / "model.ckpt", generator=Generator(norm=True), discriminator=Discriminator()
        )
        assert torch.equal(loaded.sample(4, seed=0), samples)


def test_statistics_of_the_average_change_nothing_in_training(tmp_path):
    ends = []
    for every in (None, 3):
        torch.manual_seed(0)
        model = GAN(Generator(norm=True, dropout=0.2), Discriminator(), latent_dim=LATENT, ema_decay=0.9, seed=1)

        class Look(Callback):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, every=every):
                if every and trainer.global_step % every == 0:
                    pl_module.sample(2, seed=0)
                    trainer.save_checkpoint(tmp_path / "look.ckpt")

        trainer(tmp_path, max_steps=11, callbacks=[Look()], val_check_interval=4 if every else None).fit(
            model, loader(), loader() if every else None
        )
        ends.append(weights(model))
    assert same(*ends)


def test_path_lengths_of_a_linear_generator():
    """J is the matrix itself: lengths are |Aᵀy| over the root of the number of pixels."""
    torch.manual_seed(0)
    matrix = torch.randn(16, LATENT)

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(matrix.clone())

        def forward(self, z):
            return (z @ self.weight.T).view(-1, 1, 4, 4)

    generator, rng = Linear(), torch.Generator().manual_seed(1)
    lengths = path_lengths(generator, torch.randn(6, LATENT), rng=rng)
    y = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(lengths, (y.view(6, 16) @ matrix).norm(dim=1) / 4, atol=1e-5)
    # in expectation the mean square is |A|² over the number of pixels
    many = path_lengths(generator, torch.randn(20_000, LATENT), rng=rng)
    assert many.square().mean().item() == pytest.approx(matrix.square().sum().item() / 16, rel=0.02)
    (gradient,) = torch.autograd.grad(lengths.sum(), generator.weight)
    assert gradient.abs().sum() > 0


def test_lazy_penalties_of_stylegan2_are_the_eager_ones_in_expectation():
    def total(r1_every, pl_every):
        model = build("StyleGAN2", r1_every=r1_every, pl_every=pl_every, r1_gamma=2.0)
        model.eval()
        sums = {"r1": 0.0, "path_length": 0.0}
        for step in range(32):
            for player in ("discriminator", "generator"):
                model.reseed(0)
                model.regularizers[1].mean_length.zero_()
                terms = model.play(player, images(4), Batch(torch.ones(4, LATENT)), step)
                for key in sums.keys() & terms.keys():
                    sums[key] += terms[key].item()
        return sums

    lazy, eager = total(16, 8), total(1, 1)
    assert all(value > 0 for value in eager.values())
    assert lazy == pytest.approx(eager, rel=1e-4)


def small_style(**kwargs):
    torch.manual_seed(0)
    shape = {"image_size": 8, "channels": 1, "channel_base": 64, "channel_max": 16, "mapping_layers": 2}
    networks = StyleGAN2Generator(latent_dim=8, w_dim=16, **shape), StyleGAN2Discriminator(**shape)
    return StyleGAN2(*networks, latent_dim=8, **kwargs)


def test_styles_are_mixed_while_training_and_truncated_when_sampled():
    model = small_style(style_mixing=1.0, ema_kimg=None)
    kept = []
    hook = model.generator.synthesis.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    model.reseed(0)
    model.generate(torch.randn(64, 8))
    ws = kept[0]
    hook.remove()
    first = (ws == ws[:, :1]).all(2)  # layers with the style of the first
    changes = (first[:, 1:] != first[:, :-1]).sum(1)
    assert (changes == 1).all()  # one crossover each
    assert len(first.sum(1).unique()) == model.generator.num_ws - 1
    z = torch.randn(6, 8)
    with torch.no_grad():
        model.generator.w_avg.zero_()
        model.generate(z)  # two latents an image, and one move of the mean
        rng = model.reseed(0)
        model.generator.w_avg.zero_()
        model.generate(z)
        both = model.generator.mapper(torch.cat([z, torch.randn(6, 8, generator=rng.manual_seed(rng.initial_seed()))]))
    assert torch.allclose(model.generator.w_avg, 0.005 * both.mean(0), atol=1e-7)
    model.style_mixing = 0.0
    with torch.no_grad():
        model.generator.w_avg.normal_()
    whole, half, none = (model.sample(20, seed=0, truncation=t) for t in (1.0, 0.5, 0.0))
    assert torch.allclose(whole, model.sample(20, seed=0), atol=1e-5)
    assert none.std(0).max() < 1e-6 < half.std(0).mean() < whole.std(0).mean()
    with pytest.raises(ValueError, match="Generator has no styles to truncate"):
        build("StyleGAN2").sample(2, truncation=0.5)


def test_stylegan2_trains_its_own_networks_and_goes_on_after_a_checkpoint(tmp_path):
    x = images(32, side=8)
    model = small_style()
    run = trainer(tmp_path, max_steps=9)
    run.fit(model, Batches(*x.split(8)))
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = StyleGAN2.load_from_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(loaded.sample(3, seed=0), model.sample(3, seed=0))
    lengths = [m.regularizers[1].mean_length.item() for m in (loaded, model)]
    assert lengths[0] == lengths[1] > 0
    assert model.generator.w_avg.abs().sum() > 0


def test_a_checkpoint_in_which_path_lengths_were_stylegan2s_own(tmp_path):
    batches = Batches(*images(48, side=8).split(8))
    model = small_style()
    run = trainer(tmp_path, max_steps=3)
    run.fit(model, batches)
    run.save_checkpoint(tmp_path / "new.ckpt")
    older = torch.load(tmp_path / "new.ckpt", weights_only=True)
    older["state_dict"]["mean_length"] = older["state_dict"].pop("regularizers.1.mean_length")
    torch.save(older, tmp_path / "older.ckpt")
    loaded = StyleGAN2.load_from_checkpoint(tmp_path / "older.ckpt")
    assert loaded.regularizers[1].mean_length.item() == model.regularizers[1].mean_length.item() > 0
    ends = []
    for name in ("new", "older"):
        resumed = small_style()
        trainer(tmp_path, max_steps=5).fit(resumed, batches, ckpt_path=str(tmp_path / f"{name}.ckpt"))
        ends.append(weights(resumed))
    assert same(*ends)


def test_easy_negatives_of_reacgan_are_margined_out():
    """Equation 6: classes that are told apart well, and samples near their proxies, have no gradient."""
    y = torch.tensor([0, 1])

    def gradient(cosine, own=1.0):
        f = torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]], requires_grad=True)
        v = torch.stack([torch.tensor([own, math.sqrt(1 - own**2)]), f[1].detach()])
        d2d_cross_entropy(f, v, y, f.detach(), y, margin=0.98, temperature=0.5).backward()
        return f.grad[0].abs().max().item()

    assert gradient(-0.5) == 0.0  # an easy negative
    assert gradient(0.5) > 0.1  # a hard one
    assert gradient(-0.5, own=0.99) == 0.0  # an easy positive
    assert gradient(-0.5, own=0.5) > 0.1
    alone = d2d_cross_entropy(torch.eye(2)[:1], torch.eye(2)[:1], y[:1], torch.eye(2)[:1], y[:1], 0.98, 0.5)
    assert alone.item() == 0


def test_codes_and_heads_are_asked_for_by_name(tmp_path):
    for name, wide in (("InfoGAN", 5), ("SSGAN", 4), ("ACGAN", 3), ("ReACGAN", 4)):
        model = build(name)
        model.discriminator = Discriminator()
        with pytest.raises(
            ValueError, match=rf"{name} needs a discriminator that answers \(logits, head\).*head={wide}"
        ):
            trainer(tmp_path, max_steps=1).fit(model, loader())
        model = build(name)
        model.discriminator = Discriminator(head=2)
        if name == "ReACGAN":
            model.discriminator.proxies = nn.Embedding(3, 4)
        with pytest.raises(ValueError, match=rf"{name} needs \(2, {wide}\): build it with head={wide}"):
            trainer(tmp_path, max_steps=1).fit(model, loader())
    model = build("GAN")
    model.discriminator = Discriminator(head=2)
    with pytest.raises(ValueError, match="answers in 2 parts, and GAN takes logits alone"):
        trainer(tmp_path, max_steps=1).fit(model, loader())
    with pytest.raises(ValueError, match="y must be the codes of one image or of 3, each of 4 numbers"):
        build("InfoGAN").sample(3, y=torch.zeros(3, 2))
    assert build("InfoGAN").sample(3, y=labels("InfoGAN", 3), seed=0).shape == (3, 1, 6, 6)
    with pytest.raises(ValueError, match="InfoGAN needs codes"):
        build("InfoGAN", categorical=[], continuous=0)
    with pytest.raises(ValueError, match="ACGAN needs labels"):
        build("ACGAN", num_classes=None)
