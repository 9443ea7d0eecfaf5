"""Twelve steps of each model equal a hand-written loop in plain PyTorch, which shares no code with the library."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from toys import CLASSES, LATENT, MODELS, WIDE, build, loader, trainer

from lit_gans.functional import Batch, path_lengths

STEPS = 12


class Recorder(torch.nn.Module):
    """Keeps what a generator is given while training."""

    def __init__(self, network):
        super().__init__()
        self.network, self.inputs = network, []

    def forward(self, *inputs):
        if self.training:
            self.inputs.append(tuple(i.clone() for i in inputs))
        return self.network(*inputs)


def ones_and_zeros(real, fake):
    """The cross entropy of the two kinds, and of generated samples taken for real."""
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))


def taken_for_real(fake):
    return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


def slopes(discriminator, x):
    x = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return slope.square().sum((1, 2, 3)).sqrt()


def hinge(real, fake):
    return torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + fake, min=0).mean()


def between(real, fake, drawn):
    alpha = next(drawn)[:, None, None, None]
    return alpha * real + (1 - alpha) * fake


def gan(d, g, step):
    return ones_and_zeros(d(step.real), d(step.fake)) if g is None else taken_for_real(d(step.fake))


def cgan(d, g, step):
    if g is None:
        return ones_and_zeros(d(step.real, step.y), d(step.fake, step.y))
    return taken_for_real(d(step.fake, step.y))


def minimax_gan(d, g, step):
    if g is None:
        return gan(d, g, step)
    return torch.log(1 - torch.sigmoid(d(step.fake))).mean()


def lsgan(d, g, step):
    if g is None:
        return 0.5 * ((d(step.real) - 1) ** 2).mean() + 0.5 * (d(step.fake) ** 2).mean()
    return 0.5 * ((d(step.fake) - 1) ** 2).mean()


def hinge_gan(d, g, step):
    return hinge(d(step.real), d(step.fake)) if g is None else -d(step.fake).mean()


def projection_gan(d, g, step):
    if g is None:
        return hinge(d(step.real, step.y), d(step.fake, step.y_fake))
    return -d(step.fake, step.y_fake).mean()


def wgan(d, g, step):
    return d(step.fake).mean() - d(step.real).mean() if g is None else -d(step.fake).mean()


def wgan_gp(d, g, step):
    if g is None:
        return wgan(d, g, step) + 10 * ((slopes(d, between(step.real, step.fake, step.drawn)) - 1) ** 2).mean()
    return wgan(d, g, step)


def wgan_lp(d, g, step):
    if g is None:
        excess = torch.clamp(slopes(d, between(step.real, step.fake, step.drawn)) - 1, min=0)
        return wgan(d, g, step) + 10 * (excess**2).mean()
    return wgan(d, g, step)


def dragan(d, g, step):
    if g is None:
        return gan(d, g, step) + 10 * ((slopes(d, step.real + 0.3 * next(step.drawn)) - 1) ** 2).mean()
    return gan(d, g, step)


def ragan(d, g, step):
    real, fake = d(step.real), d(step.fake)
    real, fake = (real, fake) if g is None else (fake, real)
    log = F.logsigmoid
    return -log(real - fake.mean()).mean() - log(-(fake - real.mean())).mean()


def r3gan(d, g, step):
    margin = d(step.real) - d(step.fake)
    if g is None:
        penalty = (slopes(d, step.real) ** 2).mean() + (slopes(d, step.fake) ** 2).mean()
        return -F.logsigmoid(margin).mean() + 0.05 / 2 * penalty
    return -F.logsigmoid(-margin).mean()


def ebgan(d, g, step):
    def energy(x):
        return ((d(x)[0] - x) ** 2).mean((1, 2, 3))

    if g is None:
        return energy(step.real).mean() + torch.clamp(1 - energy(step.fake), min=0).mean()
    code = d(step.fake)[1]
    n, pairs = len(code), [(i, j) for i in range(len(code)) for j in range(len(code)) if i != j]
    cosines = [F.cosine_similarity(code[i], code[j], dim=0) ** 2 for i, j in pairs]
    return energy(step.fake).mean() + 0.1 * sum(cosines) / (n * (n - 1))


def began(d, g, step):
    def loss(x):
        return (d(x)[0] - x).abs().mean()

    k = step.memory.setdefault("k", 0.0)
    if g is None:
        step.memory["real"] = loss(step.real).item()
        return loss(step.real) - k * loss(step.fake)
    value = loss(step.fake)
    step.memory["k"] = min(max(k + 0.001 * (0.5 * step.memory["real"] - value.item()), 0.0), 1.0)
    return value


def pacgan(d, g, step):
    def packed(x):
        return d(torch.cat([x[0::2], x[1::2]], dim=1))

    if g is None:
        return ones_and_zeros(packed(step.real), packed(step.fake))
    return taken_for_real(packed(step.fake))


def unrolled_gan(d, g, step):
    if g is None:
        return gan(d, g, step)
    weights = {name: p.detach().clone().requires_grad_() for name, p in d.named_parameters()}
    states = [step.d_opt.state[p] for p in d.parameters()]
    m, v = [s["exp_avg"].clone() for s in states], [s["exp_avg_sq"].clone() for s in states]

    def ahead(x):
        return torch.func.functional_call(d, weights, (x,))

    for count in range(int(states[0]["step"]) + 1, int(states[0]["step"]) + 6):
        loss = ones_and_zeros(ahead(step.real), ahead(step.fake))
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        for i, (name, gradient) in enumerate(zip(weights, gradients, strict=True)):
            m[i], v[i] = 0.5 * m[i] + 0.5 * gradient, 0.999 * v[i] + 0.001 * gradient**2
            root = torch.sqrt((v[i] + 1e-16) / (1 - 0.999**count)) + 1e-8  # the root of 0 has no derivative
            weights[name] = weights[name] - 1e-4 * m[i] / (1 - 0.5**count) / root
    return -ones_and_zeros(ahead(step.real), ahead(step.fake))


def acgan(d, g, step):
    (fake, scores), label = d(step.fake), step.y
    if g is None:
        real, real_scores = d(step.real)
        chosen = real_scores.log_softmax(1)[range(8), label] + scores.log_softmax(1)[range(8), label]
        return ones_and_zeros(real, fake) - chosen.mean()
    return taken_for_real(fake) - scores.log_softmax(1)[range(8), label].mean()


def infogan(d, g, step):
    (fake, q), codes = d(step.fake), step.y_fake
    category = -(q[:, :3].log_softmax(1) * codes[:, :3]).sum(1).mean()
    value = -torch.distributions.Normal(q[:, 3], q[:, 4].exp()).log_prob(codes[:, 3]).mean()
    adversarial = ones_and_zeros(d(step.real)[0], fake) if g is None else taken_for_real(fake)
    return adversarial + category + 0.1 * value


def ssgan(d, g, step):
    x, turns = step.real if g is None else step.fake, next(step.drawn)
    rotated = torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(x, turns, strict=True)])
    adversarial = hinge(d(step.real)[0], d(step.fake)[0]) if g is None else -d(step.fake)[0].mean()
    rotation = -d(rotated)[1].log_softmax(1)[range(8), turns].mean()
    return adversarial + (1.0 if g is None else 0.2) * rotation


def biggan(d, g, step):
    if g is None:
        return hinge_gan(d, g, step)
    penalty = 0.0
    for weight in (p for name, p in g.named_parameters() if name.endswith("weight.original") and p.ndim == 2):
        inner = weight @ weight.T
        penalty = penalty + (inner * (1 - torch.eye(len(inner)))).square().sum()
    return hinge_gan(d, g, step) + 1e-4 * penalty


def reacgan(d, g, step):
    (logits, embedding), label = d(step.real if g is None else step.fake), step.y
    f, v = F.normalize(embedding, dim=1), F.normalize(d.proxies(label), dim=1)
    rows = []
    for i in range(8):
        own = torch.exp(torch.clamp(f[i] @ v[i] - 0.98, max=0) / 0.5)
        others = [torch.exp(torch.clamp(f[i] @ f[j] - 0.02, min=0) / 0.5) for j in range(8) if label[j] != label[i]]
        rows.append(-torch.log(own / (own + sum(others))))
    classes = 0.5 * torch.stack(rows).mean()
    return (hinge(logits, d(step.fake)[0]) if g is None else -logits.mean()) + classes


def stylegan2(d, g, step):
    if g is None:
        lazy = 16 * (0.0002 * 36 / 8) / 2 * (slopes(d, step.real) ** 2).mean() if step.count == 0 else 0.0
        return gan(d, g, step) + lazy
    if step.count % 8:
        return gan(d, g, step)
    z, y = next(step.drawn)
    z = z.requires_grad_()
    (gradient,) = torch.autograd.grad((g(z) * y).sum() / 6, z, create_graph=True)
    length = gradient.square().sum(1).sqrt()
    mean = 0.99 * step.memory.get("mean", 0.0) + 0.01 * length.mean()  # with its gradient, as in the published code
    step.memory["mean"] = mean.detach()
    return gan(d, g, step) + 8 * 2 * ((length - mean) ** 2).mean()


def own_file(name):
    """The tests of a paper that has a file of its own, test_<paper>.py, which defines its loss as ``plain_loss``."""
    stem = MODELS[name].__module__.rpartition(".")[2]
    spec = importlib.util.spec_from_file_location(f"own_{stem}", Path(__file__).with_name(f"test_{stem}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOSSES = {
    "GAN": gan,
    "DCGAN": gan,
    "CGAN": cgan,
    "SNGAN": hinge_gan,
    "SAGAN": hinge_gan,
    "WGANGP": wgan_gp,
    "WGANLP": wgan_lp,
    "MinimaxGAN": minimax_gan,
    "HingeGAN": hinge_gan,
    "PacGAN": pacgan,
    "ProjectionGAN": projection_gan,
    "RaGAN": ragan,
    "ReACGAN": reacgan,
    "StyleGAN2": stylegan2,
    "UnrolledGAN": unrolled_gan,
    "BigGAN": biggan,
    "InfoGAN": infogan,
}
LOSSES |= {name: globals()[name.lower()] for name in MODELS if name not in LOSSES and name.lower() in globals()}
LOSSES |= {name: own_file(name).plain_loss for name in MODELS if name not in LOSSES}
RATES = {"WGANGP": (1e-4, 1e-4), "WGANLP": (1e-4, 1e-4), "BEGAN": (1e-4, 1e-4), "UnrolledGAN": (1e-4, 1e-3)}
RATES |= {"InfoGAN": (2e-4, 1e-3), "SAGAN": (4e-4, 1e-4), "BigGAN": (2e-4, 5e-5)}
RATES |= {"StyleGAN2": (2e-3, 2e-3)}
BETAS = dict.fromkeys(("WGANGP", "WGANLP", "SNGAN", "ProjectionGAN", "SSGAN", "SAGAN"), (0.0, 0.9))
BETAS |= {"BigGAN": (0.0, 0.999), "R3GAN": (0.0, 0.99), "StyleGAN2": (0.0, 0.99)}


class Step:
    """What a plain step has at hand."""

    def __init__(self, drawn, memory):
        self.drawn, self.memory = drawn, memory


def plain_loop(name, generator, discriminator, inputs, drawn, n_critic, g_batch=1):
    g, d = generator.parameters(), discriminator.parameters()
    if name == "WGAN":
        d_opt, g_opt = torch.optim.RMSprop(d, lr=5e-5), torch.optim.RMSprop(g, lr=5e-5)
    else:
        betas = [BETAS.get(name, (0.5, 0.999))] * 2
        d_lr, g_lr = RATES.get(name, (2e-4, 2e-4))
        d_opt, g_opt = torch.optim.Adam(d, d_lr, betas[0]), torch.optim.Adam(g, g_lr, betas[1])
    batches = [batch for _ in range(9) for batch in loader()][:STEPS]
    inputs, step = iter(inputs), Step(iter(drawn), {})
    step.d_opt = d_opt
    for count, (real, y) in enumerate(batches):
        step.real, step.y, step.count = real, y, count
        z, *step.y_fake = next(inputs)
        step.y_fake = step.y_fake[0] if step.y_fake else None
        step.fake = generator(*((z,) if step.y_fake is None else (z, step.y_fake))).detach()
        d_opt.zero_grad()
        LOSSES[name](discriminator, None, step).backward()
        d_opt.step()
        if name == "WGAN":
            for parameter in discriminator.parameters():
                parameter.data.clamp_(-0.01, 0.01)
        if (count + 1) % n_critic == 0:
            step.count = count // n_critic
            z, *step.y_fake = next(inputs)
            assert len(z) == 8 * g_batch
            step.y_fake = step.y_fake[0] if step.y_fake else None
            step.fake = generator(*((z,) if step.y_fake is None else (z, step.y_fake)))
            step.real, step.y = torch.cat([real] * g_batch), torch.cat([y] * g_batch)
            g_opt.zero_grad()
            LOSSES[name](discriminator, generator, step).backward()
            g_opt.step()
    assert next(inputs, None) is None
    assert next(step.drawn, None) is None


class Drawing:
    """Notes what a model draws besides latents and labels."""

    def __init__(self, monkeypatch):
        self.drawn = []
        for paper in ("wgan_gp", "wgan_lp"):
            monkeypatch.setattr(f"lit_gans.models.{paper}.interpolate", self.interpolate)
        monkeypatch.setattr("lit_gans.models.dragan.perturb", self.perturb)
        monkeypatch.setattr("lit_gans.models.ssgan.torch", self)
        monkeypatch.setattr("lit_gans.regularizers.path_length.path_lengths", self.path_lengths)

    def __getattr__(self, name):
        return getattr(torch, name)

    def interpolate(self, real, fake, generator):
        alpha = torch.rand(len(real.x), generator=generator)
        self.drawn.append(alpha)
        return Batch(alpha[:, None, None, None] * real.x + (1 - alpha[:, None, None, None]) * fake.x, real.y)

    def perturb(self, real, noise, generator):
        self.drawn.append(torch.randn(real.x.shape, generator=generator))
        return Batch(real.x + noise * self.drawn[-1], real.y)

    def randint(self, *args, **kwargs):
        self.drawn.append(torch.randint(*args, **kwargs))
        return self.drawn[-1]

    def path_lengths(self, generator, z, y, rng):
        state = rng.get_state()
        self.drawn.append((z.clone(), torch.randn(len(z), 1, 6, 6, generator=rng)))
        rng.set_state(state)
        return path_lengths(generator.network, z, y, rng)


@pytest.mark.parametrize(
    ("name", "n_critic"),
    [
        pytest.param(name, n_critic, marks=[pytest.mark.exhaustive] * (n_critic == 5 and name not in WIDE))
        for name in MODELS
        for n_critic in (1, 5)
    ],
)
def test_twelve_steps_equal_a_plain_loop(name, n_critic, tmp_path, monkeypatch):
    drawing = Drawing(monkeypatch)
    model = build(name, n_critic=n_critic)
    generator, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    model.generator = Recorder(model.generator)
    trainer(tmp_path, max_steps=STEPS).fit(model, loader())
    plain_loop(name, generator, discriminator, model.generator.inputs, drawing.drawn, n_critic)
    for ours, theirs in ((model.generator.network, generator), (model.discriminator, discriminator)):
        for (key, value), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            if name in ("R3GAN", "RaGAN") and key == "body.2.bias":
                continue  # a relativistic loss does not depend on it: its gradient is rounding, which Adam scales up
            assert torch.allclose(value, other, rtol=0, atol=1e-5 if name == "BigGAN" else 1e-6), key
    moved = copy.deepcopy(build(name).generator.state_dict())
    assert any(not torch.equal(moved[key], value) for key, value in generator.state_dict().items())


@pytest.mark.parametrize("name", ["SNGAN", "ProjectionGAN", "WGANGP", "RaGAN", "R3GAN", "CGAN"])
def test_twelve_steps_with_a_larger_batch_for_the_generator_equal_a_plain_loop(name, tmp_path, monkeypatch):
    drawing = Drawing(monkeypatch)
    model = build(name, n_critic=2, g_batch=2)
    generator, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    model.generator = Recorder(model.generator)
    trainer(tmp_path, max_steps=STEPS).fit(model, loader())
    plain_loop(name, generator, discriminator, model.generator.inputs, drawing.drawn, 2, g_batch=2)
    for ours, theirs in ((model.generator.network, generator), (model.discriminator, discriminator)):
        for (key, value), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            if name in ("R3GAN", "RaGAN") and key == "body.2.bias":
                continue  # a relativistic loss does not depend on it
            assert torch.allclose(value, other, rtol=0, atol=1e-6), key


@pytest.mark.parametrize("name", MODELS)
def test_each_update_draws_fresh_noise_of_the_papers_kind(name, tmp_path):
    model = build(name, n_critic=2, **({"pl_weight": 0.0} if name == "StyleGAN2" else {}))
    model.generator = Recorder(model.generator)
    trainer(tmp_path, max_steps=4).fit(model, loader())
    latents = [z for z, *_ in model.generator.inputs]
    assert len(latents) == 6  # four discriminator steps, two generator steps
    assert all(z.shape == (8, LATENT) for z in latents)
    assert all(not torch.equal(a, b) for i, a in enumerate(latents) for b in latents[:i])
    z = model.draw_latents(20_000, torch.Generator().manual_seed(0))
    mean, std = {"DCGAN": (0.0, 3**-0.5), "BEGAN": (0.0, 3**-0.5), "CGAN": (0.5, 12**-0.5)}.get(name, (0.0, 1.0))
    assert z.mean().item() == pytest.approx(mean, abs=0.01)
    assert z.std().item() == pytest.approx(std, abs=0.01)
    if name == "CGAN":
        assert all(labels.unique().numel() == CLASSES for _, labels in model.generator.inputs)
