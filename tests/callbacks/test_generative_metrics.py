"""Metrics in the validation loop: right values at the right step, in any module and Trainer, disturbing nothing."""

import csv

import pytest
import torch
import yaml
from evaluated import judge
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from toys import SIDE, Generator, build, images, loader, same, trainer, weights

from lit_gans.callbacks import GenerativeMetrics
from lit_gans.data import ImageDataModule
from lit_gans.metrics import FeatureExtractor, Protocol

SMALL = Protocol(fakes=100, kid_subsets=3, kid_subset_size=20, is_splits=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))


def metrics(names=("fd",), every_n_steps=4, **options):
    return GenerativeMetrics(
        names, **{"extractor": judge(), "protocol": SMALL, "every_n_steps": every_n_steps} | options
    )


def data(**options):
    return ImageDataModule(
        "fake", **{"image_size": SIDE, "channels": 1, "batch_size": 8, "fake_length": 80, "fake_classes": 3} | options
    )


class Foreign(LightningModule):
    """A generator that learns in its own way, without validation."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, SIDE**2), nn.BatchNorm1d(SIDE**2), nn.Tanh())

    def sample(self, n):
        return self.layers(torch.randn(n, 3)).view(n, 1, SIDE, SIDE)

    def training_step(self, batch, batch_idx):
        return (self.sample(len(batch[0])).mean() - batch[0].mean()).square()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Validated(Foreign):
    def validation_step(self, batch, batch_idx):
        self.log("val/mean", batch[0].mean())

    def val_dataloader(self):
        return loader()


def test_the_file_kept_is_the_state_that_was_measured(tmp_path):
    callback = metrics()
    best = ModelCheckpoint(tmp_path, "{step}", monitor="val/fd_judge", save_top_k=-1, auto_insert_metric_name=False)
    trainer(tmp_path, max_steps=12, enable_checkpointing=True, callbacks=[callback, best]).fit(
        build("GAN", d_lr=0.01, g_lr=0.01), data()
    )
    assert [step for step, _ in callback.history] == [4, 8, 12]
    values = {step: values["fd_judge"] for step, values in callback.history}
    assert len(set(values.values())) == 3
    for step, value in values.items():
        checkpoint = torch.load(tmp_path / f"{step}.ckpt", weights_only=True)
        assert float(best.best_k_models[str(tmp_path / f"{step}.ckpt")]) == pytest.approx(value)
        beside = checkpoint["lit_gans_metrics"]
        assert (beside["step"], beside["values"]["fd_judge"]) == (step, value)
        assert beside["protocol"]["fakes"] == 100
        assert beside["protocol"]["extractor"]["name"] == "judge"
        again = metrics(every_n_steps=None)
        model = build("GAN")
        model.load_state_dict(checkpoint["state_dict"])
        loop = trainer(tmp_path, callbacks=[again])
        (logged,) = loop.validate(model, data(), verbose=False)
        assert logged["val/fd_judge"] == pytest.approx(value)


def test_values_share_the_steps_of_the_other_metrics(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    loop = trainer(tmp_path, max_steps=12, callbacks=[metrics(["fd", "pr"])], logger=logger, log_every_n_steps=4)
    loop.fit(build("GAN"), data())
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["val/fd_judge"]] == ["3", "7", "11"]
    assert [row["step"] for row in rows if row["train/d_loss"]] == ["3", "7", "11"]
    assert all(row["val/precision"] and row["val/coverage"] for row in rows if row["val/fd_judge"])
    hparams = yaml.safe_load((tmp_path / "hparams.yaml").read_text())
    assert hparams["metrics_protocol"]["data"]["count"] == 80


def test_the_last_state_is_validated_whatever_the_interval(tmp_path):
    callback, best = metrics(every_n_steps=5), ModelCheckpoint(tmp_path, monitor="val/fd_judge", save_top_k=-1)
    trainer(tmp_path, max_steps=12, enable_checkpointing=True, callbacks=[callback, best]).fit(build("GAN"), data())
    assert [step for step, _ in callback.history] == [5, 10, 12]
    assert len(best.best_k_models) == 3
    callback = metrics(every_n_steps=7)
    trainer(tmp_path, max_steps=-1, max_epochs=2, callbacks=[callback]).fit(build("GAN"), data())
    assert [step for step, _ in callback.history] == [7, 14, 20]


@pytest.mark.parametrize("name", ["GAN", "WGANGP", "CGAN"])
def test_training_is_bit_equal_with_and_without(tmp_path, name):
    runs = []
    for callbacks in ([], [metrics(["fd", "is", "kid", "pr", "classes"])]):
        model = build(name, ema_decay=0.9)
        model.generator.body.insert(3, nn.Dropout(0.3))  # which draws from the global generator
        torch.manual_seed(7)
        # validation happens in both, and so do its draws
        options = {"val_check_interval": 4, "check_val_every_n_epoch": None}
        trainer(tmp_path, max_steps=10, callbacks=callbacks, **options).fit(model, data())
        runs.append(weights(model))
    assert same(*runs)


def test_modes_are_restored_and_nothing_is_added_to_the_module(tmp_path):
    extractor = judge()
    model = build("GAN")
    keys = model.state_dict().keys()
    modes = []

    class Watch(GenerativeMetrics):
        def on_validation_end(self, trainer, pl_module):
            modes.append({m.training for m in pl_module.modules()})

        def on_train_batch_start(self, trainer, pl_module, *_):
            modes.append({m.training for m in pl_module.modules()})

    callback = Watch(["fd"], extractor, SMALL, every_n_steps=4)
    trainer(tmp_path, max_steps=8, num_sanity_val_steps=0, callbacks=[callback]).fit(model, data())
    assert modes == [{True}] * 4 + [{False}] + [{True}] * 4 + [{False}]
    assert model.state_dict().keys() == keys
    assert not extractor.network.training


@pytest.mark.parametrize("make", [Foreign, Validated])
@pytest.mark.parametrize("source", ["loader", "datamodule"])
def test_any_module_in_any_trainer(tmp_path, make, source):
    torch.manual_seed(0)
    callback, module = metrics(["fd", "pr"]), make()
    best = ModelCheckpoint(tmp_path / "best", monitor="val/fd_judge")
    loop = Trainer(
        max_steps=8,
        accelerator="cpu",
        logger=False,
        callbacks=[callback, best],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    if source == "loader":
        loop.fit(module, loader())
    else:
        loop.fit(module, datamodule=data())
    assert [step for step, _ in callback.history] == [4, 8]
    assert loop.callback_metrics["val/fd_judge"] == pytest.approx(callback.last["fd_judge"])
    assert ("val/mean" in loop.callback_metrics) == (make is Validated)
    assert best.best_model_path
    count = callback.result.protocol["data"]["count"]
    assert count == (48 if source == "loader" else 80)


def test_a_loader_given_for_validation_is_used(tmp_path):
    callback = metrics()
    loop = trainer(tmp_path, max_steps=4, callbacks=[callback])
    loop.fit(Validated(), loader(), loader(16))
    assert len(callback.history) == 1
    assert "val/mean" in loop.callback_metrics


def test_a_folder_has_nothing_to_validate_on_and_is_measured_all_the_same(tmp_path):
    rng = torch.Generator().manual_seed(0)
    (tmp_path / "images").mkdir()
    for i in range(40):
        pixels = torch.randint(0, 256, (SIDE, SIDE), generator=rng, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / "images" / f"{i}.png")
    callback = metrics()
    folder = ImageDataModule("folder", root=tmp_path / "images", batch_size=8)
    trainer(tmp_path, max_steps=8, callbacks=[callback]).fit(build("GAN"), folder)
    assert [step for step, _ in callback.history] == [4, 8]
    assert callback.result.protocol["data"]["dataset"] == "folder"


def test_validation_is_as_it_was_for_the_next_fit(tmp_path):
    module = Foreign()
    trainer(tmp_path, max_steps=4, callbacks=[metrics()]).fit(module, loader())
    assert "validation_step" not in vars(module)
    assert "val_dataloader" not in vars(module)


def test_real_images_and_samples_of_ones_own(tmp_path):
    callback = metrics(reals=images(30), sample=lambda module, n: module.sample(n).flip(2))
    trainer(tmp_path, max_steps=4, callbacks=[callback]).fit(Foreign(), loader())
    assert callback.result.protocol["data"] == {"dataset": "given", "count": 30}


def test_the_sanity_check_and_trials_measure_nothing(tmp_path):
    callback = metrics()
    trainer(tmp_path, max_steps=2, callbacks=[callback], num_sanity_val_steps=2, limit_val_batches=1).fit(
        build("GAN"), data()
    )
    assert [step for step, _ in callback.history] == [2]
    callback = metrics()
    trainer(tmp_path, fast_dev_run=True, callbacks=[callback]).fit(build("GAN"), data())
    assert not callback.history


def test_best_and_last_are_told(tmp_path, capsys, caplog):
    callback = metrics(["fd", "classes"])
    callback.history = [(1, {"fd_judge": 5.0, "modes": 2.0}), (2, {"fd_judge": 3.0, "modes": 9.0})]
    callback.history += [(3, {"fd_judge": float("nan"), "modes": 4.0}), (4, {"fd_judge": 4.0, "modes": 4.0})]
    assert callback.best == {"fd_judge": (2, 3.0), "modes": (2, 9.0)}
    assert callback.last == {"fd_judge": 4.0, "modes": 4.0}
    callback = metrics()
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        trainer(tmp_path, max_steps=8, callbacks=[callback]).fit(build("GAN"), data())
    step, value = callback.best["fd_judge"]
    assert f"val/fd_judge: best {value:.5g} at step {step}, last {callback.last['fd_judge']:.5g} at 8" in caplog.text


def test_the_history_outlives_a_resume(tmp_path):
    callback = metrics()
    loop = trainer(tmp_path, max_steps=8, callbacks=[callback])
    loop.fit(build("GAN"), data())
    loop.save_checkpoint(tmp_path / "x.ckpt")
    again = metrics()
    trainer(tmp_path, max_steps=12, callbacks=[again]).fit(build("GAN"), data(), ckpt_path=tmp_path / "x.ckpt")
    assert again.history[:2] == callback.history
    assert [step for step, _ in again.history] == [4, 8, 12]


def test_a_generator_that_makes_nan_is_logged_as_such(tmp_path):
    class Broken(Foreign):
        def sample(self, n):
            return super().sample(n) * torch.nan

        def training_step(self, batch, batch_idx):
            return self.layers[0].weight.sum()

    callback = metrics()
    loop = trainer(tmp_path, max_steps=4, callbacks=[callback])
    with pytest.warns(UserWarning, match="step 4: the generator makes NaN"):
        loop.fit(Broken(), loader())
    assert loop.callback_metrics["val/fd_judge"].isnan()
    assert not callback.best


def test_the_extractor_goes_with_the_data(monkeypatch, tmp_path):
    asked = []

    def load(name):
        asked.append(name)
        return judge()

    monkeypatch.setattr("lit_gans.callbacks.generative_metrics.load_extractor", load)
    digits = ImageDataModule("digits", image_size=SIDE)
    for some in (digits, data()):
        trainer(tmp_path, max_steps=1, callbacks=[metrics(extractor=None)]).fit(build("GAN"), some)
    assert asked == ["digits", "inception"]


class TestRefusedBeforeTraining:
    @staticmethod
    def fit(tmp_path, callback, module=None, loaders=None, **options):
        loop = trainer(tmp_path, max_steps=4, callbacks=[callback], **options)
        module = module or build("GAN")
        module.training_step = lambda *_: pytest.fail("training began")
        loop.fit(module, datamodule=data()) if loaders is None else loop.fit(module, loaders)

    def test_no_sample(self, tmp_path):
        class Silent(Foreign):
            sample = None

        with pytest.raises(TypeError, match=r"module.sample\(n\), which Silent lacks"):
            self.fit(tmp_path, metrics(), Silent())

    def test_no_validation(self, tmp_path):
        with pytest.raises(ValueError, match="limit_val_batches=0 switches off"):
            self.fit(tmp_path, metrics(), limit_val_batches=0)

    def test_no_weights(self, tmp_path, monkeypatch):
        monkeypatch.setenv("LIT_GANS_INCEPTION", "nowhere.pth")
        with pytest.raises(FileNotFoundError, match=r"LIT_GANS_INCEPTION names nowhere\.pth"):
            self.fit(tmp_path, metrics(extractor=None))

    def test_no_logits(self, tmp_path):
        flat = FeatureExtractor(nn.Flatten(), "flat", image_size=SIDE)
        with pytest.raises(ValueError, match="classes needs class logits"):
            self.fit(tmp_path, metrics(["classes"], extractor=flat))

    def test_too_few_real_images(self, tmp_path):
        told = pytest.warns(UserWarning, match="subsets of 80 images, in place of 90: there are no more real ones")
        with told, pytest.raises(pytest.fail.Exception, match="training began"):
            self.fit(tmp_path, metrics(["kid"], protocol=SMALL.changed(fakes=500, kid_subset_size=90)))

    @pytest.mark.parametrize("monitor", ["val/fid", "val/fd_digits"])
    def test_a_monitor_of_another_name(self, tmp_path, monitor):
        callbacks = [metrics(), ModelCheckpoint(monitor=monitor)]
        with pytest.raises(ValueError, match=f"ModelCheckpoint monitors {monitor}, but .* is called val/fd_judge"):
            trainer(tmp_path, max_steps=4, enable_checkpointing=True, callbacks=callbacks).fit(build("GAN"), data())

    def test_no_such_split(self, tmp_path):
        with pytest.raises(TypeError, match="finds no test images: give it some with reals="):
            self.fit(tmp_path, metrics(protocol=SMALL.changed(split="test")), Foreign(), loader())

    def test_no_truncation(self, tmp_path):
        with pytest.raises(ValueError, match="GAN knows no truncation"):
            self.fit(tmp_path, metrics(protocol=SMALL.changed(truncation=0.5)))

    def test_no_standing_statistics(self, tmp_path):
        with pytest.raises(ValueError, match="Foreign would have to be a lit_gans model"):
            self.fit(tmp_path, metrics(protocol=SMALL.changed(standing=3)), Foreign(), loader())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be at least 1"),
        ({"names": ["fidd"]}, "no metric 'fidd'"),
        ({"protocol": "slow"}, "unknown protocol 'slow'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        metrics(**options)


def test_standing_statistics_leave_training_as_it_is(tmp_path):
    runs = []
    for callbacks in ([], [metrics(protocol=SMALL.changed(standing=3))]):
        model = build("GAN")
        torch.manual_seed(0)
        model.generator = Generator(norm=True)
        options = {"val_check_interval": 4, "check_val_every_n_epoch": None}
        trainer(tmp_path, max_steps=8, callbacks=callbacks, **options).fit(model, data())
        runs.append(weights(model))
    assert same(*runs)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_numbers_are_computed_in_full_precision_whatever_the_training(tmp_path, precision):
    """What differs is the generator, by the rounding of its images: never the extractor or the sums."""
    seen = []

    class Watched(FeatureExtractor):
        def __call__(self, batch):
            found = super().__call__(batch)
            seen.append((batch.dtype, found.features.dtype, next(self.network.parameters()).dtype))
            return found

    extractor = Watched(judge().network, "judge", image_size=SIDE, channels=1)
    callback = metrics(extractor=extractor)
    trainer(tmp_path, max_steps=4, precision=precision, callbacks=[callback]).fit(build("GAN", d_lr=0, g_lr=0), data())
    assert set(seen) == {(torch.uint8, torch.float32, torch.float32)}
    plain = metrics()
    trainer(tmp_path, max_steps=4, callbacks=[plain]).fit(build("GAN", d_lr=0, g_lr=0), data())
    assert callback.last["fd_judge"] == pytest.approx(plain.last["fd_judge"], rel=0.02)


def test_a_foreign_module_trains_bit_equally_with_and_without(tmp_path):
    runs = []
    for callbacks in ([], [metrics()]):
        torch.manual_seed(0)
        module = Foreign()
        trainer(tmp_path, max_steps=10, callbacks=callbacks).fit(module, loader())
        runs.append(weights(module))
    assert same(*runs)


def test_a_second_fit_begins_anew(tmp_path):
    callback = metrics()
    for _ in range(2):
        trainer(tmp_path, max_steps=4, callbacks=[callback]).fit(build("GAN"), data())
        assert [step for step, _ in callback.history] == [4]


def test_two_of_them_in_one_trainer(tmp_path):
    other = FeatureExtractor(nn.Flatten(), "flat", image_size=SIDE, channels=1)
    callbacks = [metrics(), metrics(extractor=other, protocol=SMALL.changed(fakes=90))]
    loop = trainer(tmp_path, max_steps=4, callbacks=callbacks)
    loop.fit(build("GAN"), data())
    assert {"val/fd_judge", "val/fd_flat"} <= loop.callback_metrics.keys()
    loop.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert checkpoint["lit_gans_metrics"]["values"].keys() == {"fd_judge"}
    assert checkpoint["lit_gans_metrics/flat"]["values"].keys() == {"fd_flat"}


@pytest.mark.parametrize(("monitor", "mode"), [("val/fd_judge", "max"), ("val/precision", "min"), ("val/kid", "max")])
def test_a_monitor_of_the_wrong_direction_is_refused(tmp_path, monitor, mode):
    callbacks = [metrics(["fd", "kid", "pr"]), ModelCheckpoint(monitor=monitor, mode=mode)]
    with pytest.raises(ValueError, match=f"ModelCheckpoint monitors {monitor}, of which mode="):
        trainer(tmp_path, max_steps=4, enable_checkpointing=True, callbacks=callbacks).fit(build("GAN"), data())


def test_what_was_lent_is_taken_back_after_an_exception(tmp_path):
    class Failing(Foreign):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("user code")

    module = Failing()
    with pytest.raises(RuntimeError, match="user code"):
        trainer(tmp_path, max_steps=4, callbacks=[metrics()]).fit(module, loader())
    assert not {"validation_step", "val_dataloader"} & vars(module).keys()


# modes


class Points(Foreign):
    """Draws a point of the first two centres of the ring in turn, and two far ones."""

    def sample(self, n):
        return torch.tensor([[2.0, 0.0], [2**0.5, 2**0.5], [0.0, 0.0], [0.0, 0.0]]).repeat(n, 1)[:n]

    def training_step(self, batch, batch_idx):
        return self.layers(torch.zeros(len(batch[0]), 3)).mean()


def test_modes_are_counted_without_extractor_or_real_images(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_gans.callbacks.generative_metrics.load_extractor", pytest.fail)
    monkeypatch.setattr("lit_gans.callbacks.generative_metrics.real_statistics", pytest.fail)
    callback = GenerativeMetrics(["modes"], protocol=Protocol(fakes=100), every_n_steps=4)
    best = ModelCheckpoint(tmp_path, monitor="val/reverse_kl")
    fitting = trainer(tmp_path, max_steps=8, callbacks=[callback, best], enable_checkpointing=True)
    fitting.fit(Points(), datamodule=ImageDataModule("ring", batch_size=8, limit=80))
    expected = {"modes": 2, "high_quality": 0.5, "reverse_kl": torch.tensor(4.0).log().item()}
    assert [step for step, _ in callback.history] == [4, 8]
    assert callback.last == pytest.approx(expected)
    logged = {key: float(value) for key, value in fitting.callback_metrics.items()}
    assert logged == pytest.approx({f"val/{key}": value for key, value in expected.items()})
    saved = torch.load(best.best_model_path, weights_only=True)["lit_gans_metrics"]
    assert saved["protocol"]["modes"]["std"] == 0.02
    assert saved["protocol"]["data"] == {"dataset": "ring", "split": "train", "limit": 80}


@pytest.mark.parametrize(
    ("names", "dataset", "told"),
    [
        (["modes"], "digits", "modes are counted where they are known"),
        (["fd"], "ring", "fd look at images, and the data are points: ask for modes alone"),
    ],
)
def test_modes_and_points_go_together(tmp_path, names, dataset, told):
    callback = GenerativeMetrics(names, protocol=SMALL, every_n_steps=4)
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, callbacks=[callback]).fit(Points(), datamodule=ImageDataModule(dataset, batch_size=8))


def test_a_wrong_direction_of_the_divergence_is_refused(tmp_path):
    callbacks = [GenerativeMetrics(["modes"], every_n_steps=4), ModelCheckpoint(monitor="val/reverse_kl", mode="max")]
    with pytest.raises(ValueError, match="monitors val/reverse_kl, of which mode='min' is the better"):
        trainer(tmp_path, callbacks=callbacks, enable_checkpointing=True).fit(
            Points(), datamodule=ImageDataModule("ring", batch_size=8, limit=80)
        )
