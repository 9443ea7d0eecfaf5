"""Twelve steps of each model equal a hand-written loop in plain PyTorch, which shares no code with the library."""

import copy

import pytest
import torch
import torch.nn.functional as F
from toys import CLASSES, LATENT, MODELS, build, loader, trainer

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


def plain_loop(name, generator, discriminator, inputs, alphas, n_critic):
    g, d = generator.parameters(), discriminator.parameters()
    if name == "WGAN":
        g_opt, d_opt = torch.optim.RMSprop(g, lr=5e-5), torch.optim.RMSprop(d, lr=5e-5)
    else:
        lr = 1e-4 if name == "WGANGP" else 2e-4
        betas = (0.0, 0.9) if name in ("WGANGP", "SNGAN") else (0.5, 0.999)
        g_opt, d_opt = torch.optim.Adam(g, lr=lr, betas=betas), torch.optim.Adam(d, lr=lr, betas=betas)
    batches = [batch for _ in range(9) for batch in loader()][:STEPS]
    inputs, alphas = iter(inputs), iter(alphas)
    for step, (real, y) in enumerate(batches, start=1):
        label = (y,) if name == "CGAN" else ()
        fake = generator(*next(inputs)).detach()
        real_logits, fake_logits = discriminator(real, *label), discriminator(fake, *label)
        if name in ("GAN", "DCGAN", "CGAN"):
            ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
            loss = F.binary_cross_entropy_with_logits(real_logits, ones)
            loss = loss + F.binary_cross_entropy_with_logits(fake_logits, zeros)
        elif name == "SNGAN":
            loss = torch.clamp(1 - real_logits, min=0).mean() + torch.clamp(1 + fake_logits, min=0).mean()
        else:
            loss = fake_logits.mean() - real_logits.mean()
        if name == "WGANGP":
            alpha = next(alphas)[:, None, None, None]
            x = (alpha * real + (1 - alpha) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
            loss = loss + 10 * ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
        d_opt.zero_grad()
        loss.backward()
        d_opt.step()
        if name == "WGAN":
            for parameter in discriminator.parameters():
                parameter.data.clamp_(-0.01, 0.01)
        if step % n_critic == 0:
            logits = discriminator(generator(*next(inputs)), *label)
            if name in ("GAN", "DCGAN", "CGAN"):
                loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            else:
                loss = -logits.mean()
            g_opt.zero_grad()
            loss.backward()
            g_opt.step()
    assert next(inputs, None) is None
    assert next(alphas, None) is None


@pytest.mark.parametrize("n_critic", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_twelve_steps_equal_a_plain_loop(name, n_critic, tmp_path, monkeypatch):
    alphas = []

    def interpolate(real, fake, generator):
        alphas.append(torch.rand(len(real), generator=generator))
        alpha = alphas[-1][:, None, None, None]
        return alpha * real + (1 - alpha) * fake

    monkeypatch.setattr("lit_gans.models.wgan_gp.interpolate", interpolate)
    model = build(name, n_critic=n_critic)
    generator, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    model.generator = Recorder(model.generator)
    trainer(tmp_path, max_steps=STEPS).fit(model, loader())
    plain_loop(name, generator, discriminator, model.generator.inputs, alphas, n_critic)
    for ours, theirs in ((model.generator.network, generator), (model.discriminator, discriminator)):
        for (key, value), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(value, other, rtol=0, atol=1e-6), key
    moved = copy.deepcopy(build(name).generator.state_dict())
    assert any(not torch.equal(moved[key], value) for key, value in generator.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_each_update_draws_fresh_noise_of_the_papers_kind(name, tmp_path):
    model = build(name, n_critic=2)
    model.generator = Recorder(model.generator)
    trainer(tmp_path, max_steps=4).fit(model, loader())
    latents = [z for z, *_ in model.generator.inputs]
    assert len(latents) == 6  # four discriminator steps, two generator steps
    assert all(z.shape == (8, LATENT) for z in latents)
    assert all(not torch.equal(a, b) for i, a in enumerate(latents) for b in latents[:i])
    z = model.draw_latents(20_000, torch.Generator().manual_seed(0))
    mean, std = {"DCGAN": (0.0, 3**-0.5), "CGAN": (0.5, 12**-0.5)}.get(name, (0.0, 1.0))
    assert z.mean().item() == pytest.approx(mean, abs=0.01)
    assert z.std().item() == pytest.approx(std, abs=0.01)
    if name == "CGAN":
        assert all(labels.unique().numel() == CLASSES for _, labels in model.generator.inputs)
