"""What every model of pictures from pictures promises, whatever its paper; each on the package's own networks."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from pictures import EXTRAS, INPAINTING, SIDE, SUPER, TRANSLATORS, Seer, build, loader, networks, pairs, perceptual
from toys import by_turns, same, trainer, weights

from lit_gans import networks as nets
from lit_gans.functional import Batch, mix_seed
from lit_gans.game import compiling
from lit_gans.game.checkpoint import begin_with
from lit_gans.game.compiling import compile_networks
from lit_gans.game.module import PLAYERS
from lit_gans.game.pool import ImagePool
from lit_gans.models import CUT, ESRGAN, GAN, SRGAN, CycleGAN, Pix2Pix
from lit_gans.modules import frozen
from lit_gans.networks import PatchDiscriminator, ResNetTranslator, UNetGenerator
from lit_gans.regularizers import R1, Consistency, LeCam, PathLength

STEPS = 12
each = pytest.mark.parametrize("name", TRANSLATORS)


# twelve steps equal a hand-written loop


def ones(logits):
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def zeros(logits):
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def seen(x):
    """What the small network sees in pictures, written out."""
    network = Seer().to(x)
    first = network.first(x)
    return first, network.second(first.tanh())


class Pix2PixLoop:
    rates, betas, first = (2e-4, 2e-4), (0.5, 0.999), "discriminator"

    def __init__(self, g, d, drawn):
        self.g, self.d = g, d

    def make(self, source):
        return self.g(source)

    def d_loss(self, source, target, fake):
        pair = [self.d(torch.cat([source, x], 1)) for x in (target, fake.detach())]
        return 0.5 * ones(pair[0]) + 0.5 * zeros(pair[1])

    def g_loss(self, source, target, fake):
        return ones(self.d(torch.cat([source, fake], 1))) + 100 * (fake - target).abs().mean()


class CycleGANLoop(Pix2PixLoop):
    first = "generator"

    def __init__(self, g, d, drawn):
        self.g, self.d = g, d
        self.kept, self.step = ([], []), 0

    def make(self, source):
        self.a = source
        return self.g.there(source)

    def replayed(self, kept, x, rng):
        given = []
        for image in x:
            coin, slot = torch.rand((), generator=rng, dtype=torch.float32), torch.randint(3, (1,), generator=rng)
            if len(kept) < 3:
                kept.append(image)
                given.append(image)
            elif coin < 0.5:
                given.append(kept[slot])
                kept[slot] = image
            else:
                given.append(image)
        return torch.stack(given)

    def d_loss(self, a, b, fake):
        rng = torch.Generator().manual_seed(mix_seed(0, self.step, 0))
        self.step += 1
        fake_b, fake_a = self.replayed(self.kept[0], fake.detach(), rng), self.replayed(self.kept[1], self.fake_a, rng)
        of_b = 0.5 * ((self.d.there(b) - 1) ** 2).mean() + 0.5 * (self.d.there(fake_b) ** 2).mean()
        of_a = 0.5 * ((self.d.back(a) - 1) ** 2).mean() + 0.5 * (self.d.back(fake_a) ** 2).mean()
        return of_a + of_b

    def g_loss(self, a, b, fake):
        fake_a = self.g.back(b)
        self.fake_a = fake_a.detach()
        adversarial = ((self.d.there(fake) - 1) ** 2).mean() + ((self.d.back(fake_a) - 1) ** 2).mean()
        cycle = (self.g.back(fake) - a).abs().mean() + (self.g.there(fake_a) - b).abs().mean()
        identity = (self.g.there(b) - b).abs().mean() + (self.g.back(a) - a).abs().mean()
        return adversarial + 10 * cycle + 5 * identity


class CUTLoop(Pix2PixLoop):
    def __init__(self, g, d, drawn):
        self.g, self.d, self.drawn = g, d, iter(drawn)

    def d_loss(self, a, b, fake):
        return 0.5 * ((self.d(b) - 1) ** 2).mean() + 0.5 * (self.d(fake.detach()) ** 2).mean()

    def nce(self, x, made):
        total = 0.0
        maps = zip(self.g.features(x, (0, 2, 4)), self.g.features(made, (0, 2, 4)), self.g.projections, strict=True)
        for keys, queries, project in maps:
            places = next(self.drawn)
            picture = 0.0
            for n in range(len(x)):
                k = project(torch.stack([keys[n].flatten(1)[:, p] for p in places])).detach()
                q = project(torch.stack([queries[n].flatten(1)[:, p] for p in places]))
                for i in range(len(places)):
                    scores = torch.stack([q[i] @ k[j] / 0.07 for j in range(len(places))])
                    picture = picture - (scores[i] - torch.logsumexp(scores, 0))
            total = total + picture / (len(x) * len(places))
        return total / 3

    def g_loss(self, a, b, fake):
        adversarial = ((self.d(fake) - 1) ** 2).mean()
        return adversarial + 0.5 * self.nce(a, fake) + 0.5 * self.nce(b, self.g(b))


class SRGANLoop(Pix2PixLoop):
    rates, betas = (1e-4, 1e-4), (0.9, 0.999)

    def d_loss(self, source, target, fake):
        return ones(self.d(target)) + zeros(self.d(fake.detach()))

    def g_loss(self, source, target, fake):
        features = sum(((a - b) ** 2).mean() for a, b in zip(seen(fake), seen(target), strict=True))
        return 1e-3 * ones(self.d(fake)) + 0.1 * features


class ESRGANLoop(Pix2PixLoop):
    rates, betas, first = (1e-4, 1e-4), (0.9, 0.99), "generator"

    def d_loss(self, source, target, fake):
        real, made = self.d(target), self.d(fake.detach())
        return 0.5 * ones(real - made.mean()) + 0.5 * zeros(made - real.mean())

    def g_loss(self, source, target, fake):
        real, made = self.d(target).detach(), self.d(fake)
        relative = 0.5 * ones(made - real.mean()) + 0.5 * zeros(real - made.mean())
        features = sum((a - b).abs().mean() for a, b in zip(seen(fake), seen(target), strict=True))
        return 5e-3 * relative + 1e-2 * (fake - target).abs().mean() + 0.1 * features


class ContextEncoderLoop(Pix2PixLoop):
    rates = (2e-3, 2e-4)

    def make(self, source):
        picture, mask = source[:, :1], source[:, 1:]
        return self.g(torch.cat([picture * (1 - mask) + 2 * (117 / 255 - 0.5) * mask, mask], 1))

    def centre(self, target):
        return target[:, :, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]

    def d_loss(self, source, target, fake):
        return ones(self.d(self.centre(target))) + zeros(self.d(fake.detach()))

    def g_loss(self, source, target, fake):
        weight = torch.tensor([[10.0 if min(i, j, 7 - i, 7 - j) < 2 else 1.0 for j in range(8)] for i in range(8)])
        error = (weight * (fake - self.centre(target)) ** 2).sum() / (weight.sum() * len(fake))
        return 0.001 * ones(self.d(fake)) + 0.999 * error


class GatedInpaintingLoop(Pix2PixLoop):
    rates = (1e-4, 1e-4)

    def make(self, source):
        self.coarse, fine = self.g(source)
        return fine

    def says(self, source, x):
        mask = source[:, 1:]
        return self.d(x * mask + source[:, :1] * (1 - mask), source)

    def d_loss(self, source, target, fake):
        real, made = self.says(source, target), self.says(source, fake.detach())
        return torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + made, min=0).mean()

    def g_loss(self, source, target, fake):
        near = (self.coarse - target).abs().mean() + (fake - target).abs().mean()
        return near - self.says(source, fake).mean()


PLAIN = {"fill": 2 * (117 / 255 - 0.5), "overlap": 2}


def plain_loop(name, g, d, drawn):
    loop = globals()[f"{name}Loop"](g, d, drawn)
    g_opt = torch.optim.Adam(g.parameters(), loop.rates[0], loop.betas)
    d_opt = torch.optim.Adam(d.parameters(), loop.rates[1], loop.betas)
    batches = [batch for _ in range(9) for batch in loader(name)][:STEPS]
    for step, (source, target) in enumerate(batches):
        source, target = source.double(), target.double()
        torch.manual_seed(mix_seed(mix_seed(0, step, 0), 1))  # dropout
        fake = loop.make(source)

        def move_d(source=source, target=target, fake=fake):
            d_opt.zero_grad()
            loop.d_loss(source, target, fake).backward()
            d_opt.step()

        def move_g(source=source, target=target, fake=fake):
            g_opt.zero_grad()
            d.requires_grad_(False)
            loop.g_loss(source, target, fake).backward()
            d.requires_grad_(True)
            g_opt.step()

        for move in (move_g, move_d) if loop.first == "generator" else (move_d, move_g):
            move()


@each
def test_twelve_steps_equal_a_plain_loop(name, tmp_path, monkeypatch):
    extra = PLAIN if name == "ContextEncoder" else {}
    model, plain, drawn = build(name, **extra).double(), build(name, **extra).double(), []
    draw = CUT.draw_places
    monkeypatch.setattr(CUT, "draw_places", lambda self, x: drawn.append(draw(self, x)) or drawn[-1])
    run = trainer(tmp_path, max_steps=STEPS, precision="64-true", log_every_n_steps=5)
    run.fit(model, loader(name))
    plain.train()
    plain_loop(name, plain.generator, plain.discriminator, drawn)
    moved = weights(build(name, **extra).double())
    for key, value in weights(plain).items():
        torch.testing.assert_close(
            weights(model)[key], value, rtol=0, atol=1e-6, msg=lambda text, k=key: f"{k}: {text}"
        )
    assert not same(weights(model), moved)
    shares = {key: float(value) for key, value in model.measured.items() if key.startswith("share_")}
    assert sum(shares.values()) == pytest.approx(1)


# the contract


@each
def test_an_update_of_one_player_leaves_the_other_alone_and_both_see_one_fake(name, tmp_path):
    played, before = [], {}

    class Watched(TRANSLATORS[name]):
        def update(self, player, *closures):
            before.update({who: weights(self.network(who)) for who in PLAYERS})
            terms = super().update(player, *closures)
            other = "generator" if player == "discriminator" else "discriminator"
            still = [k for k, _ in self.network(other).named_parameters()]
            assert all(torch.equal(before[other][k], weights(self.network(other))[k]) for k in still)
            assert not same(before[player], weights(self.network(player)))
            played.append(player)
            return terms

        def discriminator_loss(self, real, fake):
            assert not fake.x.requires_grad
            seen.append(fake.x.clone())
            return super().discriminator_loss(real, fake)

        def generator_loss(self, real, fake):
            assert fake.x.requires_grad
            seen.append(fake.x.detach().clone())
            return super().generator_loss(real, fake)

    seen = []
    model = Watched(*networks(name), **EXTRAS.get(name, {}) | ({"pool": 0} if name == "CycleGAN" else {}))
    trainer(tmp_path, max_steps=3).fit(model, loader(name))
    first = "generator" if TRANSLATORS[name].traits.generator_first else "discriminator"
    assert played == [first, next(player for player in PLAYERS if player != first)] * 3
    assert all(torch.equal(a, b) for a, b in zip(seen[::2], seen[1::2], strict=True))


@each
def test_accumulation_equals_the_large_batch_or_is_refused(name, tmp_path, monkeypatch):
    if name == "ESRGAN":
        with pytest.raises(ValueError, match="accumulate=2: ESRGAN compares the samples of a batch"):
            build(name, accumulate=2)
        return
    monkeypatch.setattr(CUT, "draw_places", lambda self, x: torch.arange(9))  # drawn for each part
    ends, still = [], {"pool": 0} if name == "CycleGAN" else {}  # it draws for each part
    for accumulate in (1, 2, 4):
        model = build(name, accumulate=accumulate, **still).double()
        for layer in model.modules():  # a part has other statistics, and other dropout, than the whole
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
                layer.momentum = 0.0
        monkeypatch.setattr(torch.nn.BatchNorm2d, "train", lambda self, mode=True: self)
        monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
        trainer(tmp_path, max_steps=4, precision="64-true").fit(model, loader(name))
        ends.append(weights(model))
        monkeypatch.undo()
        monkeypatch.setattr(CUT, "draw_places", lambda self, x: torch.arange(9))
    for other in ends[1:]:
        for key, value in ends[0].items():
            if not (name == "GatedInpainting" and "discriminator" in key):  # power iterations, one a part
                tolerance = 1e-3 if name == "GatedInpainting" else 1e-6
                assert torch.allclose(value, other[key], rtol=0, atol=tolerance), key


@pytest.mark.parametrize(("name", "precision"), by_turns(TRANSLATORS, ["bf16-mixed", "32-true", "64-true"]))
def test_trains_in_each_precision_and_stays_finite(name, precision, tmp_path):
    model = build(name)
    trainer(tmp_path, max_steps=6, precision=precision, log_every_n_steps=3).fit(model, loader(name))
    assert all(torch.isfinite(value).all() for value in weights(model).values())
    assert not same(weights(model.generator), weights(build(name).generator))
    assert torch.isfinite(model.translate(pairs(name)[0][:2].to(next(model.parameters()).dtype))).all()


@each
def test_checkpoint_round_trip_and_continuation_are_exact(name, tmp_path):
    def fit(steps, ckpt=None):
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
        run = trainer(tmp_path, max_steps=steps, callbacks=[saver], enable_checkpointing=True)
        model = build(name, ema_decay=0.9, g_scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9))
        run.fit(model, loader(name), ckpt_path=ckpt, weights_only=True)
        return model, run

    whole, run = fit(12)
    resumed, resumed_run = fit(12, tmp_path / "step=6.ckpt")
    assert same(weights(whole), weights(resumed))
    assert same(dict(whole.named_buffers()), dict(resumed.named_buffers()))
    for a, b in zip(run.optimizers, resumed_run.optimizers, strict=True):
        assert str(a.state_dict()) == str(b.state_dict())
    again = TRANSLATORS[name].load_from_checkpoint(tmp_path / "step=12.ckpt", trust="pictures")  # nothing but the file
    assert type(again) is TRANSLATORS[name]
    source = pairs(name)[0][:2]
    assert torch.equal(again.translate(source), whole.translate(source))
    assert torch.equal(again.translate(source, ema=False), whole.translate(source, ema=False))
    if name == "CycleGAN":
        assert int(whole.pools[0].filled) == 3
        assert torch.equal(again.translate(source, direction="b2a"), whole.translate(source, direction="b2a"))


@each
def test_hooks_return_scalar_terms_and_leave_their_inputs_alone(name):
    model, (source, target) = build(name), pairs(name, 4)
    real = Batch(target, source)
    fake = model.make(real)
    before = [x.clone() for x in (*real, *fake)]
    for loss, given in ((model.discriminator_loss, fake.detach()), (model.generator_loss, fake)):
        terms = loss(real, given)
        assert all(term.shape == () and torch.isfinite(term) for term in terms.values())
    assert all(torch.equal(a, b) for a, b in zip(before, (*real, *fake), strict=True))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("Pix2Pix", "CycleGAN") else pytest.mark.exhaustive) for n in TRANSLATORS]
)
def test_compiled_equals_eager(name, monkeypatch):
    monkeypatch.setattr(compiling, "_BACKEND", "aot_eager")  # all but the kernels
    monkeypatch.setattr(CUT, "draw_places", lambda self, x: torch.arange(9))
    gradients = []
    for compiled in (False, True):
        model, (source, target) = build(name), pairs(name, 4)
        if compiled:
            compile_networks(model)
        for player in PLAYERS:
            torch.manual_seed(0)
            with frozen(list(model.discriminator.parameters()) if player == "generator" else []):
                real = Batch(target, source)
                sum(model.play(player, real, real, step=None).values()).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@each
def test_validation_logs_both_losses_and_teaches_nothing(name, tmp_path):
    model = build(name)
    before = weights(model)
    (logged,) = trainer(tmp_path).validate(model, loader(name), verbose=False)
    assert {"val/d_loss", "val/g_loss"} <= logged.keys()
    assert all(math.isfinite(value) for value in logged.values())
    assert same(before, weights(model))


@each
def test_held_out_pictures_of_any_size_are_validated_or_passed_over(name, tmp_path):
    model, (source, target) = build(name), pairs(name, 3)
    for height, width in ((13, 9), (40, 21), (3, 3)):
        scale = 2 if name in SUPER else 1
        x, y = (F.interpolate(p, (height * s, width * s)) for p, s in ((source, 1), (target, scale)))
        if name in ("CycleGAN", "CUT"):
            y = F.interpolate(target, (width, height))  # of another shape than its neighbour
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 3)
        (logged,) = trainer(tmp_path).validate(model, data, verbose=False)
        assert all(math.isfinite(value) for value in logged.values())


def test_held_out_batches_of_a_form_of_ones_own_are_validated(tmp_path):
    class Mine(Pix2Pix):
        def unpack_batch(self, batch):
            return Batch(batch["high"], batch["low"])

    data = [{"high": target, "low": source} for source, target in zip(*pairs("Pix2Pix", 4), strict=True)]
    run = trainer(tmp_path)
    (ours,) = run.validate(Mine(*networks("Pix2Pix")), torch.utils.data.DataLoader(data, 4), verbose=False)
    (theirs,) = run.validate(Pix2Pix(*networks("Pix2Pix")), loader("Pix2Pix", 4), verbose=False)
    assert ours == theirs


def test_of_mirrored_pictures_features_are_mirrored_back(tmp_path, monkeypatch):
    model, read, seen = build("CUT", flip_equivariance=True, identity=False), [], []
    model.generator.network.register_forward_pre_hook(lambda network, x: read.append(x[0]))
    contrast = model.contrast

    def spied(source, made, flipped=False):
        seen.append((torch.equal(read[-1], source.flip(3)), torch.equal(read[-1], source), flipped))
        return contrast(source, made, flipped)

    monkeypatch.setattr(model, "contrast", spied)
    trainer(tmp_path, max_steps=STEPS).fit(model, loader("CUT"))
    assert set(seen[-STEPS:]) == {(True, False, True), (False, True, False)}  # half of the steps each, about


def test_holes_of_any_size_count_alike_however_a_batch_is_divided():
    model = build("ContextEncoder")
    target = torch.rand(2, 1, SIDE, SIDE) * 2 - 1
    mask = torch.zeros_like(target)
    mask[0, :, :2], mask[1, :, :, 3:] = 1, 1
    real, fake = Batch(target, torch.cat([target * (1 - mask), mask], 1)), torch.zeros_like(target)

    def loss(rows):
        part = real.part(rows)
        return model.generator_loss(part, Batch(fake[rows], part.y))["pixel"]

    halves = [loss(slice(0, 1)), loss(slice(1, 2))]
    expected = [0.999 * target[k].square()[mask[k] == 1].mean() for k in range(2)]
    torch.testing.assert_close(torch.stack(halves), torch.stack(expected))
    torch.testing.assert_close(loss(slice(2)), torch.stack(expected).mean())


@each
def test_the_first_stage_learns_from_content_alone(name, tmp_path):
    if not TRANSLATORS[name].content:
        with pytest.raises(ValueError, match=f"{name} has no loss without its discriminator"):
            build(name, content_only=True)
        return
    with pytest.raises(ValueError, match="leave n_critic out"):
        build(name, content_only=True, n_critic=2)
    model = build(name, content_only=True)
    before = weights(model.discriminator)
    run = trainer(tmp_path, max_steps=4)
    run.fit(model, loader(name))
    assert run.global_step == 4
    assert same(before, weights(model.discriminator))
    assert not same(weights(build(name).generator), weights(model.generator))


# use


@each
def test_translate_takes_any_size_and_leaves_all_as_it_was(name):
    model, channels = build(name), 2 if name in INPAINTING else 1
    scale = 2 if name in SUPER else 1
    model.train()
    before, state = weights(model), torch.get_rng_state()
    for height, width in ((1, 1), (3, 5), (17, 9), (40, 33)):
        x = torch.rand(2, channels, height, width) * 2 - 1
        if name in INPAINTING:
            x[:, -1] = 0
            x[:, -1, height // 2 :, : min(width, 8)][:, :8] = 1
        state = torch.get_rng_state()
        made = model.translate(x)
        assert made.shape == (2, 1, height * scale, width * scale)
        assert made.abs().max() <= 1
        assert torch.equal(made, model.translate(x))
        assert torch.equal(made[1:], model.translate(x[1:]))  # a picture depends on nothing but its source
        assert torch.equal(torch.get_rng_state(), state)
    assert same(before, weights(model))
    assert all(module.training for module in model.generator.modules())


@each
def test_a_model_of_another_type_gives_pictures_of_the_type_of_their_sources(name):
    source = pairs(name, 1)[0]
    for kind in (torch.float64, torch.bfloat16):
        model = build(name).to(kind)
        for x in (source, source.double(), ((source + 1) * 127.5).to(torch.uint8)):
            assert model.translate(x).dtype == x.dtype


@pytest.mark.parametrize("name", INPAINTING)
def test_known_pixels_come_back_bit_for_bit(name):
    source = torch.rand(2, 2, 20, 28) * 2 - 1
    source[:, 1] = 0
    source[:, 1, 3:10, 20:28] = (torch.rand(2, 7, 8) > 0.3).float()
    made = build(name).translate(source)
    known = source[:, 1:] < 0.5
    assert torch.equal(made[known], source[:, :1][known])
    assert not torch.equal(made, source[:, :1])


def test_a_hole_larger_than_the_region_is_refused():
    source = torch.zeros(1, 2, 20, 28)
    source[:, 1, 2:12] = 1
    with pytest.raises(ValueError, match="the hole spans 10 × 28 pixels, and ContextEncoderGenerator fills at most 8"):
        build("ContextEncoder").translate(source)


def test_the_mode_at_test_time_is_part_of_the_checkpoint(tmp_path):
    generator = UNetGenerator(in_channels=1, out_channels=1, depth=5, base_channels=4)  # deep enough for dropout
    data = torch.utils.data.TensorDataset(*[torch.rand(8, 1, 32, 32) * 2 - 1 for _ in range(2)])
    model = Pix2Pix(generator, networks("Pix2Pix")[1])
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, torch.utils.data.DataLoader(data, 4))
    run.save_checkpoint(tmp_path / "x.ckpt")
    again, source = Pix2Pix.load_from_checkpoint(tmp_path / "x.ckpt"), data[0][0][None]
    as_trained = again.translate(source)
    assert again.test_mode == "train"
    assert not torch.equal(as_trained, again.translate(source, test_mode="eval"))
    assert not torch.equal(as_trained, again.translate(source, seed=1))  # its noise is dropout
    network = model.generator.train()
    torch.manual_seed(0)
    torch.testing.assert_close(as_trained, network(source).detach(), rtol=0, atol=0)


def test_sampling_has_nothing_to_draw_from():
    with pytest.raises(TypeError, match=r"Pix2Pix makes pictures of pictures: use model\.translate"):
        build("Pix2Pix").sample(4)
    with pytest.raises(ValueError, match="Pix2Pix knows a2b, not 'b2a'"):
        build("Pix2Pix").translate(torch.zeros(1, 1, 8, 8), direction="b2a")
    with pytest.raises(ValueError, match=r"sources must be \(N, 1, H, W\)"):
        build("Pix2Pix").translate(torch.zeros(1, 3, 8, 8))
    for shape in ((8,), (1, 8, 8), (0, 1, 8, 8)):
        with pytest.raises(ValueError, match=r"sources must be \(N, 1, H, W\)"):
            build("Pix2Pix").translate(torch.zeros(shape))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        build("Pix2Pix").translate(torch.zeros(1, 1, 8, 8), batch_size=0)


def test_two_kinds_may_differ_in_channels_and_size(tmp_path):
    there, back = (ResNetTranslator(in_channels=i, out_channels=4 - i, blocks=1, base_channels=4) for i in (1, 3))
    judges = [PatchDiscriminator(in_channels=i, layers=1, base_channels=4, norm="instance") for i in (3, 1)]
    model = CycleGAN(there, judges[0], back, judges[1], identity_weight=0, pool=2)
    a, b = torch.rand(8, 1, 16, 16) * 2 - 1, torch.rand(8, 3, 24, 16) * 2 - 1
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(a, b), 2)
    trainer(tmp_path, max_steps=3).fit(model, data, data)
    assert [tuple(pool.images.shape) for pool in model.pools] == [(2, 3, 16, 16), (2, 1, 24, 16)]
    assert model.translate(b[:1, :, :9, :7], direction="b2a").shape == (1, 1, 9, 7)


def test_a_pool_of_another_size_is_not_gone_on_with(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(build("CycleGAN"), loader("CycleGAN"))
    run.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="pool is of 3 images, the model's of 2: give pool=3"):
        trainer(tmp_path, max_steps=2).fit(build("CycleGAN", pool=2), loader("CycleGAN"), ckpt_path=tmp_path / "x.ckpt")


def test_the_pool_is_that_of_the_paper():
    pool, rng, plain, kept = ImagePool(4), torch.Generator().manual_seed(3), torch.Generator().manual_seed(3), []
    for start in range(0, 60, 3):
        x = torch.arange(start, start + 3).view(3, 1, 1, 1).float()
        expected = []
        for value in x.flatten().tolist():
            coin, slot = float(torch.rand((), generator=plain)), int(torch.randint(4, (1,), generator=plain))
            if len(kept) < 4:
                kept.append(value)
                expected.append(value)
            elif coin < 0.5:
                expected.append(kept[slot])
                kept[slot] = value
            else:
                expected.append(value)
        assert pool(x, rng).flatten().tolist() == expected
        assert pool.images.flatten()[: len(kept)].tolist() == kept


def test_in_half_of_the_cases_the_pool_gives_an_older_picture():
    pool, rng = ImagePool(50), torch.Generator().manual_seed(0)
    x = torch.arange(4000.0).view(-1, 1, 1, 1)
    given = pool(x, rng)
    assert torch.equal(given[:50], x[:50])
    assert float((given[50:] != x[50:]).float().mean()) == pytest.approx(0.5, abs=0.03)


# a term against a closed form


def test_patches_that_resemble_their_own_place_alone_cost_nothing():
    from lit_gans.models.cut import patch_nce

    apart = torch.eye(5)[None]
    expected = -math.log(math.exp(1 / 0.07) / (math.exp(1 / 0.07) + 4))
    assert float(patch_nce(apart, apart, 0.07)) == pytest.approx(expected, abs=1e-7)
    same_all = torch.ones(2, 8, 3) / math.sqrt(3)
    assert float(patch_nce(same_all, same_all, 0.07)) == pytest.approx(math.log(8), abs=1e-5)


def test_perceptual_terms_are_means_over_maps_and_gram_matrices():
    a, b = pairs("Pix2Pix", 3)[1], pairs("Pix2Pix", 3, seed=5)[1]
    maps = list(zip(seen(a), seen(b), strict=True))
    expected = sum(w * (x - y).abs().mean() for w, (x, y) in zip((2.0, 0.5), maps, strict=True))
    assert float(perceptual(weights=(2.0, 0.5)).distance(a, b)) == pytest.approx(float(expected), abs=1e-6)
    grams = 0.0
    for x, y in maps:
        c, n = x.shape[1], x.shape[2] * x.shape[3]
        of = [torch.stack([m.flatten(1) @ m.flatten(1).T / (c * n) for m in z]) for z in (x, y)]
        grams = grams + ((of[0] - of[1]) ** 2).mean()
    assert float(perceptual(gram=True, norm="l2").distance(a, b)) == pytest.approx(float(grams), rel=1e-5)


def test_a_model_holds_no_weights_of_what_looks_at_its_pictures():
    model = build("SRGAN")
    before = set(model.state_dict()), sum(1 for _ in model.parameters())
    model.generator_loss(*[Batch(pairs("SRGAN")[1], pairs("SRGAN")[0])] * 2)
    model.regularizers[0](model, Batch(pairs("SRGAN")[1]), Batch(pairs("SRGAN", seed=2)[1]))
    assert (set(model.state_dict()), sum(1 for _ in model.parameters())) == before


def test_vgg19_is_looked_for_and_checked(tmp_path, monkeypatch, recwarn):
    from torchvision.models import vgg19

    from lit_gans.regularizers import PerceptualLoss
    from lit_gans.regularizers import perceptual as module

    torch.manual_seed(0)
    network = vgg19()
    kept = {key: value.half() if value.numel() > 1e6 else value for key, value in network.state_dict().items()}
    kept = {key: value for key, value in kept.items() if key.startswith("features.")}
    torch.save(kept, tmp_path / "vgg19.pth")
    monkeypatch.setenv("LIT_GANS_VGG19", str(tmp_path / "vgg19.pth"))
    told = []
    monkeypatch.setattr(module, "rank_zero_warn", told.append)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    (before,) = PerceptualLoss().maps(x)
    (after,) = PerceptualLoss(before_activation=False).maps(x)
    network.features.load_state_dict({key.removeprefix("features."): value.float() for key, value in kept.items()})
    body = network.eval().features[:35]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = body(((x + 1) / 2 - mean) / std)
    torch.testing.assert_close(before, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, expected.detach().relu(), rtol=1e-4, atol=1e-5)
    assert "is not the file that torchvision publishes" in told[0]
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    monkeypatch.setenv("LIT_GANS_VGG19", str(tmp_path / "broken.pth"))
    with pytest.raises(ValueError, match="does not hold the weights of VGG19"):
        PerceptualLoss().maps(x)
    monkeypatch.setenv("LIT_GANS_VGG19", str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError, match="LIT_GANS_VGG19 names"):
        PerceptualLoss().maps(x)


# what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 3}, "not of noise or labels: leave num_classes out"),
        ({"latent_dim": 64}, "leave latent_dim out"),
        ({"uniform_labels": True}, "leave uniform_labels out"),
        ({"augment": torch.nn.Identity()}, "augment would move the picture alone"),
        ({"regularizers": [PathLength()]}, "PathLength moves latents, and Pix2Pix has none"),
        ({"regularizers": [Consistency()]}, "Consistency moves pictures alone"),
        ({"test_mode": "evaluation"}, "test_mode must be eval or train"),
        ({"l1_weight": -1.0}, "l1_weight must not be negative"),
    ],
)
def test_what_makes_no_sense_with_a_source_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build("Pix2Pix", **arguments)


def test_what_makes_no_sense_with_two_discriminators_is_refused():
    with pytest.raises(ValueError, match="R1 knows one discriminator, and CycleGAN has two"):
        build("CycleGAN", regularizers=[R1(1.0)])
    with pytest.raises(ValueError, match="sources have 1 channels and targets 3: give a back_generator"):
        CycleGAN(ResNetTranslator(in_channels=1, blocks=1, base_channels=4), PatchDiscriminator())
    with pytest.raises(ValueError, match="PerceptualLoss holds pictures against their targets, and those of CUT are"):
        build("CUT", regularizers=[perceptual()])
    build("CUT", regularizers=[perceptual(compare="source"), perceptual(gram=True)])
    with pytest.raises(ValueError, match="PerceptualLoss is for models of pictures from pictures, and GAN is none"):
        perceptual()(GAN(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)), None, None)
    with pytest.raises(ValueError, match=r"UNetGenerator has no method features"):
        CUT(UNetGenerator(depth=2, base_channels=4), PatchDiscriminator())


@pytest.mark.parametrize("penalty", [R1(1.0), LeCam()])
def test_add_ons_that_ask_the_discriminator_work_with_a_source(penalty, tmp_path):
    model = build("Pix2Pix", regularizers=[penalty])
    trainer(tmp_path, max_steps=3, log_every_n_steps=1).fit(model, loader("Pix2Pix"))
    assert f"train/d_{penalty.name}" in model.trainer.logged_metrics


@pytest.mark.parametrize(
    ("name", "batch", "message"),
    [
        ("Pix2Pix", torch.zeros(4, 1, 16, 16), r"needs batches \(source, target\)"),
        ("Pix2Pix", (torch.zeros(4, 3, 16, 16), torch.zeros(4, 1, 16, 16)), "source pictures have 3 channels.*takes 1"),
        ("Pix2Pix", (torch.zeros(4, 1, 18, 20),) * 2, "train on crops of 16 × 16"),
        ("Pix2Pix", (torch.full((4, 1, 16, 16), 9.0),) * 2, r"span \[9, 9\]: scale them"),
        ("SRGAN", (torch.zeros(4, 1, 16, 16),) * 2, "the generator makes 1 × 32 × 32 of sources 1 × 16 × 16"),
        ("CUT", (torch.zeros(4, 1, 16, 16), torch.zeros(4, 1, 16, 16).int()), "the target of the batch is torch.int32"),
    ],
)
def test_batches_that_do_not_fit_are_named_before_training(name, batch, message, tmp_path):
    from toys import Batches

    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, max_steps=1).fit(build(name), torch.utils.data.DataLoader(Whole(batch), None))
    assert Batches


class Whole(torch.utils.data.Dataset):
    def __init__(self, batch):
        self.batch = batch

    def __getitem__(self, index):
        return self.batch

    def __len__(self):
        return 2


@pytest.mark.parametrize("cls", [SRGAN, ESRGAN])
def test_a_second_stage_that_begins_with_nothing_is_warned_of(cls, tmp_path, recwarn):
    trainer(tmp_path, max_steps=1).fit(build(cls.__name__), loader(cls.__name__))
    assert any("begins with untrained weights" in str(w.message) for w in recwarn)
    recwarn.clear()
    model = build(cls.__name__)
    model.begun = True
    trainer(tmp_path, max_steps=1).fit(model, loader(cls.__name__))
    assert not any("begins with untrained weights" in str(w.message) for w in recwarn)


def checkpoint_of(model, folder):
    run = trainer(folder, max_steps=1)
    run.fit(model, loader(type(model).__name__))
    run.save_checkpoint(folder / "x.ckpt")
    return folder / "x.ckpt"


@pytest.mark.parametrize(("ema", "content_only"), [(True, True), (False, False)])
def test_a_second_stage_begins_with_the_weights_of_the_first(ema, content_only, tmp_path):
    options = {"ema_decay": 0.5} if ema else {}
    first = build("SRGAN", content_only=content_only, **options)
    path = checkpoint_of(first, tmp_path)
    second = build("SRGAN", seed=1, **options)
    drawn = copy.deepcopy(second.discriminator.state_dict())
    told = begin_with(second, path)
    taken = first.g_ema if ema else first.generator
    for name, wanted in taken.state_dict().items():
        assert torch.equal(second.generator.state_dict()[name], wanted)
        assert not ema or torch.equal(second.g_ema.state_dict()[name], wanted)
    assert told.startswith("begins with the averaged" if ema else "begins with the weights")
    rival = drawn if content_only else first.discriminator.state_dict()
    assert ("which is untrained, begins anew" in told) == content_only
    assert all(torch.equal(tensor, rival[name]) for name, tensor in second.discriminator.state_dict().items())
    assert second.begun


def test_a_second_stage_of_other_networks_is_refused(tmp_path):
    path = checkpoint_of(build("SRGAN"), tmp_path)
    other = build("SRGAN")
    other.generator = nets.SRResNet(scale=2, channels=1, base_channels=8, blocks=1)
    with pytest.raises(ValueError, match=r"holds another generator, \d+ tensors differ: .*4.* there, .*8.* here"):
        begin_with(other, path)
    other = build("SRGAN", seed=1)
    other.discriminator = nets.SRDiscriminator(channels=1, base_channels=8)
    assert "of other shapes there, begins anew" in begin_with(other, path)


def test_weights_beneath_a_spectral_norm_are_drawn_anew_too():
    from lit_gans.modules import initialise
    from lit_gans.networks import UNetDiscriminator

    network = UNetDiscriminator(channels=1, base_channels=8)
    initialise(network, 0.02)
    learned = [p for name, p in network.named_parameters() if name.endswith("original")]
    assert len(learned) > 5
    assert float(torch.cat([p.detach().flatten() for p in learned]).std()) == pytest.approx(0.02, rel=0.05)


def test_sources_are_compared_in_all_their_colours():
    rgb, grey = torch.rand(2, 3, 16, 16) * 2 - 1, torch.rand(2, 1, 16, 16) * 2 - 1
    penalty = perceptual(compare="source")
    expected = penalty.distance(grey, rgb)
    assert float(penalty(build("Pix2Pix"), Batch(grey, rgb), Batch(grey, rgb))) == pytest.approx(float(expected))
