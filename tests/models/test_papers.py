"""Each paper's formulas in closed form (Dirac-GAN: G(z) = θ, D(x) = ψx; linear critics), and its own claim."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from toys import (
    EXTRAS,
    LATENT,
    MODELS,
    PSI,
    THETA,
    Batches,
    Discriminator,
    Generator,
    Point,
    Slope,
    build,
    images,
    loader,
    networks,
    trainer,
)

from lit_gans.functional import (
    Batch,
    clip_grad_adaptive_,
    input_gradient_norm,
    interpolate,
    mix_seed,
    to_uint8,
    update_average_,
)
from lit_gans.models import (
    CGAN,
    DCGAN,
    DRAGAN,
    GAN,
    LSGAN,
    R3GAN,
    SAGAN,
    SNGAN,
    WGAN,
    WGANGP,
    WGANLP,
    BigGAN,
    HingeGAN,
    MinimaxGAN,
    ProjectionGAN,
    RaGAN,
    StyleGAN2,
    UnrolledGAN,
)
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator
from lit_gans.regularizers import R1


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def vector_field(cls, **kwargs):
    """Loss values and gradients (dL_D/dψ, dL_G/dθ) on Dirac-GAN with real data at 0."""
    model = cls(Point(), Slope(), latent_dim=1, **kwargs)
    real, z = torch.zeros(4, 1), torch.zeros(4, 1)
    y = torch.zeros(4, dtype=torch.int64) if model.num_classes else None
    d_loss = sum(model.play("discriminator", Batch(real, y), Batch(z, y), step=None).values())
    (d_grad,) = torch.autograd.grad(d_loss, model.discriminator.psi)
    g_loss = sum(model.play("generator", Batch(real, y), Batch(z, y), step=None).values())
    (g_grad,) = torch.autograd.grad(g_loss, model.generator.theta)
    return d_loss.item(), d_grad.item(), g_loss.item(), g_grad.item()


GAN_FIELD = (
    math.log(2) + math.log1p(math.exp(PSI * THETA)),
    sigmoid(PSI * THETA) * THETA,
    math.log1p(math.exp(-PSI * THETA)),
    -sigmoid(-PSI * THETA) * PSI,
)
HINGE_FIELD = (1 + 1 + PSI * THETA, THETA, -PSI * THETA, -PSI)  # 1 - 0 and 1 + ψθ = 0.09, both within the margin


@pytest.mark.parametrize(
    ("cls", "kwargs", "expected"),
    [
        (GAN, {}, GAN_FIELD),
        (DCGAN, {"init_std": None}, GAN_FIELD),
        (CGAN, {"num_classes": 2}, GAN_FIELD),
        (WGAN, {}, (PSI * THETA, THETA, -PSI * THETA, -PSI)),
        # |D'(x)| = |ψ| everywhere: the penalty is 10(|ψ| - 1)², its slope 20(|ψ| - 1) sign ψ
        (
            WGANGP,
            {},
            (
                PSI * THETA + 10 * (abs(PSI) - 1) ** 2,
                THETA + 20 * (abs(PSI) - 1) * math.copysign(1, PSI),
                -PSI * THETA,
                -PSI,
            ),
        ),
        (SNGAN, {}, HINGE_FIELD),
        (HingeGAN, {}, HINGE_FIELD),
        (SAGAN, {}, HINGE_FIELD),
        (BigGAN, {"ema_decay": None}, HINGE_FIELD),
        (ProjectionGAN, {"num_classes": 2}, HINGE_FIELD),
        (MinimaxGAN, {}, (*GAN_FIELD[:2], -math.log1p(math.exp(PSI * THETA)), -sigmoid(PSI * THETA) * PSI)),
        (
            LSGAN,
            {},
            (0.5 + (PSI * THETA) ** 2 / 2, PSI * THETA**2, (PSI * THETA - 1) ** 2 / 2, (PSI * THETA - 1) * PSI),
        ),
        (
            WGANLP,
            {"gp_weight": 3.0},
            (
                PSI * THETA + 3 * (abs(PSI) - 1) ** 2,
                THETA + 6 * (abs(PSI) - 1) * math.copysign(1, PSI),
                -PSI * THETA,
                -PSI,
            ),
        ),
        (
            DRAGAN,
            {},
            (
                GAN_FIELD[0] + 10 * (abs(PSI) - 1) ** 2,
                GAN_FIELD[1] + 20 * (abs(PSI) - 1) * math.copysign(1, PSI),
                *GAN_FIELD[2:],
            ),
        ),
        # all real logits are 0, all of fakes ψθ: both terms of the averages are the same
        (
            RaGAN,
            {},
            (
                2 * math.log1p(math.exp(PSI * THETA)),
                2 * sigmoid(PSI * THETA) * THETA,
                2 * math.log1p(math.exp(-PSI * THETA)),
                -2 * sigmoid(-PSI * THETA) * PSI,
            ),
        ),
        # R1 and R2 are γ/2 ψ² each
        (
            R3GAN,
            {"gamma": 0.3},
            (
                math.log1p(math.exp(PSI * THETA)) + 0.3 * PSI**2,
                sigmoid(PSI * THETA) * THETA + 0.6 * PSI,
                math.log1p(math.exp(-PSI * THETA)),
                -sigmoid(-PSI * THETA) * PSI,
            ),
        ),
        (UnrolledGAN, {"steps": 0}, (*GAN_FIELD[:2], -GAN_FIELD[0], -sigmoid(PSI * THETA) * PSI)),
        (
            StyleGAN2,
            {"pl_weight": 0.0, "r1_gamma": 0.3},
            (GAN_FIELD[0] + 0.3 / 2 * PSI**2, GAN_FIELD[1] + 0.3 * PSI, *GAN_FIELD[2:]),
        ),
    ],
)
def test_dirac_gan(cls, kwargs, expected):
    assert vector_field(cls, **kwargs) == pytest.approx(expected, abs=2e-6)


def test_gan_optimal_discriminator_value_is_minus_log_4():
    """Theorem 1: with equal distributions the optimal D is 1/2 and the value is -log 4."""
    model = GAN(Point(), Slope(psi=0.0), latent_dim=1)
    terms = model.discriminator_loss(torch.randn(8, 1), torch.randn(8, 1))
    assert sum(terms.values()).item() == pytest.approx(math.log(4))


def test_gan_generator_gradient_does_not_vanish_when_the_discriminator_wins():
    x = torch.full((1, 1), 30.0, requires_grad=True)
    model = GAN(Point(), Slope(psi=-1.0), latent_dim=1)  # D(fake) = σ(-30)
    (non_saturating,) = torch.autograd.grad(model.generator_loss(x, x)["adversarial"], x)
    (saturating,) = torch.autograd.grad(torch.log(1 - torch.sigmoid(-x)).mean(), x)
    assert non_saturating.item() == pytest.approx(1.0, abs=1e-6)
    assert saturating.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_dirac_gan_circles_without_r1_and_converges_with_it(gamma, tmp_path):
    """Mescheder et al. 2018, lemmas 2.4 and 4.1: the trajectory is that of their vector field, step for step."""
    rate, steps, theta, psi = 0.1, 400, THETA, 0.0
    for _ in range(steps):
        psi -= rate * (sigmoid(psi * theta) * theta + gamma * psi)
        theta += rate * sigmoid(-psi * theta) * psi
    model = GAN(
        Point(),
        Slope(psi=0.0),
        latent_dim=1,
        regularizers=[R1(weight=gamma)] if gamma else None,
        g_optimizer=partial(torch.optim.SGD, lr=rate),
        d_optimizer=partial(torch.optim.SGD, lr=rate),
    )
    trainer(tmp_path, max_steps=steps).fit(model, Batches(*[torch.zeros(4, 1)] * steps))
    assert [model.generator.theta.item(), model.discriminator.psi.item()] == pytest.approx([theta, psi], abs=1e-4)
    assert (math.hypot(theta, psi) < 0.01) == (gamma > 0)


def test_dcgan_initialises_as_the_paper_says():
    torch.manual_seed(0)
    model = DCGAN(DCGANGenerator(latent_dim=100), DCGANDiscriminator())
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 10_000:
            assert module.weight.mean().item() == pytest.approx(0, abs=1e-3)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert module.bias.abs().max() == 0
    assert model.draw_latents(5000, torch.Generator().manual_seed(0)).abs().max() <= 1
    assert model.latent_dim == 100
    assert (model.lrs, model.betas) == ((2e-4, 2e-4), (0.5, 0.999))


def test_wgan_weights_stay_in_the_box_and_reach_its_wall(tmp_path):
    model = build("WGAN", clip=0.02)
    trainer(tmp_path, max_steps=5).fit(model, loader())
    largest = max(p.abs().max().item() for p in model.discriminator.parameters())
    assert largest == pytest.approx(0.02)
    assert max(p.abs().max().item() for p in model.generator.parameters()) > 0.1
    with pytest.raises(ValueError, match="gp_weight must not be negative"):
        build("WGANGP", gp_weight=-1)
    with pytest.raises(ValueError, match="clip must be above 0"):
        build("WGAN", clip=0.0)


def test_wgan_critic_estimates_the_wasserstein_distance_up_to_its_slope(tmp_path):
    """Equation 2 at its maximum over |ψ| <= c: c · |E x - E G(z)|, the distance of two points times c."""

    class Still(WGAN):
        def generator_loss(self, real, fake):
            return {"nothing": 0 * fake.x.sum()}

    model = Still(Point(), Slope(psi=0.0), latent_dim=1, clip=0.5, d_lr=0.05)
    trainer(tmp_path, max_steps=60).fit(model, Batches(*[torch.zeros(4, 1)] * 60))
    terms = model.discriminator_loss(torch.zeros(4, 1), torch.full((4, 1), THETA))
    assert -sum(terms.values()).item() == pytest.approx(0.5 * THETA, abs=1e-6)


@pytest.mark.parametrize("shape", [(3,), (1, 5, 7), (3, 4, 4)])
def test_wgan_gp_of_a_linear_critic_is_ten_times_its_slope_less_one_squared(shape):
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 1))
    model = WGANGP(Point(), critic, latent_dim=1)
    terms = model.discriminator_loss(torch.randn(6, *shape), torch.randn(6, *shape))
    slope = critic[1].weight.norm().item()
    assert terms["gradient_penalty"].item() == pytest.approx(10 * (slope - 1) ** 2, rel=1e-5)
    assert (model.n_critic, model.lrs, model.betas) == (5, (1e-4, 1e-4), (0.0, 0.9))


def test_wgan_gp_penalty_against_finite_differences_in_float64():
    torch.manual_seed(0)
    critic = Discriminator(side=2).double()
    model = WGANGP(Point(), critic, latent_dim=1)
    real, fake = torch.randn(3, 1, 2, 2).double(), torch.randn(3, 1, 2, 2).double()
    model.rng.manual_seed(1)
    penalty = model.discriminator_loss(real, fake)["gradient_penalty"]
    alpha = torch.rand(3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).view(3, 1, 1, 1)
    x = alpha * real + (1 - alpha) * fake
    slopes = torch.stack(
        [
            (critic(x + 1e-6 * e) - critic(x - 1e-6 * e)).flatten() / 2e-6
            for e in torch.eye(4).double().view(4, 1, 1, 2, 2)
        ],
        1,
    ).norm(dim=1)
    assert penalty.item() == pytest.approx(10 * (slopes - 1).square().mean().item(), rel=1e-6)
    weight = critic.body[0].weight
    (gradient,) = torch.autograd.grad(penalty, weight)
    step = torch.zeros_like(weight)
    step[0, 0] = 1e-5

    def at(sign):
        with torch.no_grad():
            weight.add_(sign * step)
        model.rng.manual_seed(1)
        value = model.discriminator_loss(real, fake)["gradient_penalty"].item()
        with torch.no_grad():
            weight.sub_(sign * step)
        return value

    assert gradient[0, 0].item() == pytest.approx((at(1) - at(-1)) / 2e-5, rel=1e-4)


def test_wgan_gp_pulls_a_critic_to_slope_one(tmp_path):
    class Still(WGANGP):
        def generator_loss(self, real, fake):
            return {"nothing": 0 * fake.x.sum()}

    model = Still(Point(), Slope(psi=3.0), latent_dim=1, d_optimizer=partial(torch.optim.SGD, lr=0.02))
    trainer(tmp_path, max_steps=300).fit(model, Batches(*[torch.zeros(8, 1)] * 300))
    # stationary for ψ > 0: θ + 20(ψ - 1) = 0
    assert abs(model.discriminator.psi.item()) == pytest.approx(1 - THETA / 20, abs=5e-3)


def test_sngan_normalises_every_layer_to_spectral_norm_one(tmp_path):
    torch.manual_seed(0)
    critic = DCGANDiscriminator(image_size=8, channels=1, width=8, norm=None)
    SNGAN(Generator(side=8), critic, latent_dim=LATENT)
    layers = [m for m in critic.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert len(layers) >= 2
    critic.train()
    for _ in range(200):
        critic(images(2, side=8))
    critic.eval()
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-3)
    norms = input_gradient_norm(critic, images(16, side=8))
    assert norms.max() < len(layers) * 16  # convolutions: bounded by the layers' norms, not exploding
    assert sum(p.numel() for p in SNGAN(Generator(), Discriminator()).discriminator.parameters()) == sum(
        p.numel() for p in Discriminator().parameters()
    )


def test_sngan_hinge_has_no_gradient_beyond_the_margin():
    model = SNGAN(Point(), Slope(psi=-3.0), latent_dim=1)
    real = torch.full((2, 1), -1.0)  # D = 3 > 1
    terms = model.discriminator_loss(real, -real)
    assert {key: value.item() for key, value in terms.items()} == {"real": 0.0, "fake": 0.0}


def test_cgan_learns_which_label_goes_with_which_image(tmp_path):
    """Two labels, two points: the conditional generator finds the point of each label."""

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.points = nn.Parameter(torch.zeros(2))

        def forward(self, z, y):
            return self.points[y][:, None]

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.zeros(2))

        def forward(self, x, y):
            return self.slope[y][:, None] * x

    x = torch.tensor([-1.0, 1.0]).repeat(8)[:, None]
    batch = (x, torch.tensor([0, 1]).repeat(8))
    model = CGAN(Table(), Head(), num_classes=2, g_lr=0.02, d_lr=0.02, regularizers=[R1(weight=2.0)])
    trainer(tmp_path, max_steps=500).fit(model, Batches(*[batch] * 500))
    assert model.generator.points.tolist() == pytest.approx([-1.0, 1.0], abs=0.15)


def test_r1_of_a_linear_discriminator():
    model = GAN(Point(), Slope(), latent_dim=1)
    assert R1()(model, torch.randn(4, 1), None).item() == pytest.approx(PSI**2 / 2)


def test_input_gradient_norm_takes_a_patch_map_as_its_mean_and_stays_in_float32():
    x = torch.randn(5, 4)
    weight = torch.tensor([3.0, 4.0, 0.0, 0.0])
    assert torch.allclose(
        input_gradient_norm(lambda v: (v @ weight).view(-1, 1, 1, 1).repeat(1, 1, 2, 2), x), torch.tensor(5.0)
    )
    linear = nn.Linear(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        norms = input_gradient_norm(linear, x.bfloat16())
    assert norms.dtype == torch.float32
    assert torch.allclose(norms, linear.weight.norm().expand(5), atol=1e-6)


def test_interpolates_lie_on_the_lines_with_one_uniform_weight_a_sample():
    real, fake = torch.ones(4000, 2, 3), torch.zeros(4000, 2, 3)
    points = interpolate(real, fake, torch.Generator().manual_seed(0)).flatten(1)
    assert (points == points[:, :1]).all()
    weights = points[:, 0].sort().values
    assert (weights - torch.linspace(0, 1, 4000)).abs().max() < 0.03  # Kolmogorov-Smirnov at 0.1 %


def test_adaptive_clipping_is_equation_3():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]))
    weight.grad = torch.tensor([[0.3, 0.4], [1.0, 0.0], [0.0, 0.001]])
    bias = nn.Parameter(torch.tensor([0.0, 2.0]))
    bias.grad = torch.tensor([6.0, 8.0])
    clip_grad_adaptive_([weight, bias], clip_factor=0.01, eps=1e-3)
    assert torch.allclose(weight.grad, torch.tensor([[0.03, 0.04], [1e-5, 0.0], [0.0, 0.001]]))
    assert torch.allclose(bias.grad, torch.tensor([0.012, 0.016]))


def test_to_uint8_rounds_and_clamps_where_others_wrap():
    values = torch.tensor([-1.01, -1.0, -0.9999, 0.9999, 1.0, 1.01, 0.999 * 2 - 1])
    assert to_uint8(values).tolist() == [0, 0, 0, 255, 255, 255, 255]
    assert to_uint8(torch.arange(256) / 127.5 - 1).tolist() == list(range(256))


def test_update_average_and_mixed_seeds():
    a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    expected = 0.9 * a.weight.detach() + 0.1 * b.weight.detach()
    update_average_(a, b, 0.9)
    assert torch.allclose(a.weight, expected)
    seeds = {mix_seed(s, i, r) for s in range(10) for i in range(100) for r in range(4)}
    assert len(seeds) == 4000
    assert mix_seed(0, 0) == 520810605562734633  # checkpoints of every version must see the same noise


def test_every_model_has_its_papers_defaults():
    expected = {
        "GAN": (1, 2e-4, (0.5, 0.999), 128),
        "DCGAN": (1, 2e-4, (0.5, 0.999), 100),
        "WGAN": (5, 5e-5, (0.5, 0.999), 128),
        "WGANGP": (5, 1e-4, (0.0, 0.9), 128),
        "SNGAN": (5, 2e-4, (0.0, 0.9), 128),
        "CGAN": (1, 2e-4, (0.5, 0.999), 100),
        "MinimaxGAN": (1, 2e-4, (0.5, 0.999), 128),
        "LSGAN": (1, 2e-4, (0.5, 0.999), 128),
        "HingeGAN": (1, 2e-4, (0.5, 0.999), 128),
        "WGANLP": (5, 1e-4, (0.0, 0.9), 128),
        "DRAGAN": (1, 2e-4, (0.5, 0.999), 128),
        "RaGAN": (1, 2e-4, (0.5, 0.999), 128),
        "R3GAN": (1, 2e-4, (0.0, 0.99), 128),
        "EBGAN": (1, 2e-4, (0.5, 0.999), 128),
        "BEGAN": (1, 1e-4, (0.5, 0.999), 64),
        "PacGAN": (1, 2e-4, (0.5, 0.999), 128),
        "UnrolledGAN": (1, 1e-4, (0.5, 0.999), 128),
        "ACGAN": (1, 2e-4, (0.5, 0.999), 100),
        "ProjectionGAN": (5, 2e-4, (0.0, 0.9), 128),
        "InfoGAN": (1, 2e-4, (0.5, 0.999), 62),
        "SSGAN": (1, 2e-4, (0.0, 0.9), 128),
        "SAGAN": (1, 4e-4, (0.0, 0.9), 128),
        "BigGAN": (2, 2e-4, (0.0, 0.999), 120),
        "StyleGAN2": (1, 2e-3, (0.0, 0.99), 512),
        "ReACGAN": (1, 2e-4, (0.5, 0.999), 128),
    }
    for name in expected:  # a paper with a test file of its own has this there
        model = MODELS[name](*networks(name), **EXTRAS.get(name, {}))
        assert (model.n_critic, model.lrs[0], model.betas, model.latent_dim) == expected[name]
        generators = {"UnrolledGAN": 1e-3, "InfoGAN": 1e-3, "SAGAN": 1e-4, "BigGAN": 5e-5, "StyleGAN2": 2e-3}
        assert model.lrs[1] == pytest.approx(generators.get(name, model.lrs[0]))
    assert build("BigGAN").ema_decay == 0.9999
    assert build("StyleGAN2").ema_kimg == 10
    assert build("ProjectionGAN").uniform_labels
