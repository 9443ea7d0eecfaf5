"""``evaluate`` of models of pictures from pictures, and of pictures beside their targets; GenerativeMetrics of them."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from pictures import build
from PIL import Image
from toys import trainer

from lit_gans.callbacks import GenerativeMetrics
from lit_gans.cli import main
from lit_gans.data import PairedImageDataModule, UnpairedImageDataModule
from lit_gans.models import Pix2Pix
from lit_gans.networks import PatchDiscriminator, UNetGenerator


def pix2pix():
    torch.manual_seed(0)
    generator = UNetGenerator(in_channels=1, out_channels=1, depth=3, base_channels=4)
    return Pix2Pix(generator, PatchDiscriminator(in_channels=2, layers=0, base_channels=4), test_mode="eval")


def digits(**kwargs):
    return PairedImageDataModule("digits", task="invert", batch_size=16, limit=32, **kwargs)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    callback = GenerativeMetrics(["psnr", "l1", "fd"], every_n_steps=2)
    best = ModelCheckpoint(folder, monitor="val/fd_digits")  # wherever among the metrics it stands
    run = trainer(folder, max_steps=3, callbacks=[callback, best], enable_checkpointing=True)
    model = pix2pix()
    run.fit(model, digits())
    run.save_checkpoint(folder / "x.ckpt")
    return folder / "x.ckpt", callback, model


def test_values_of_training_are_those_of_evaluate(checkpoint, tmp_path, capsys):
    path, callback, _ = checkpoint
    assert [step for step, _ in callback.history] == [2, 3]
    assert set(callback.last) == {"psnr", "l1", "fd_digits"}
    assert callback.result.protocol["data"]["dataset"] == "digits"
    words = ["--metrics", "psnr", "l1", "fd", "--baseline", "input", "mean", "-o", str(tmp_path / "x.json")]
    main(["evaluate", str(path), *words])
    report = json.loads((tmp_path / "x.json").read_text())
    for key, value in callback.last.items():
        assert report["metrics"][key] == pytest.approx(value, rel=1e-6)
    assert report["metrics"]["l1_input"] > report["metrics"]["l1_mean"]
    assert report["protocol"]["name"] == "pictures"
    assert "32 pictures of digits val" in capsys.readouterr().out
    saved = torch.load(path, weights_only=True)["lit_gans_metrics"]
    assert saved["values"] == callback.last


def test_options_may_stand_before_the_checkpoint(checkpoint, capsys):
    main(["evaluate", "--seed", "0", "--data.batch_size", "8", str(checkpoint[0]), "--metrics", "l1"])
    assert "32 pictures of digits val" in capsys.readouterr().out


def test_models_without_pairs_are_measured_both_ways(tmp_path):
    callback = GenerativeMetrics(["fd", "cycle"], extractor="digits")
    data = UnpairedImageDataModule("digits", task_b="invert", batch_size=8, limit=24)
    trainer(tmp_path, max_steps=1, callbacks=[callback]).fit(build("CycleGAN"), data)
    assert set(callback.last) == {"fd_digits", "fd_digits_back", "cycle_a", "cycle_b"}


def test_metrics_need_pairs_to_look_at(tmp_path):
    from pictures import loader

    with pytest.raises(TypeError, match="finds no pictures for Pix2Pix to translate"):
        trainer(tmp_path, max_steps=1, callbacks=[GenerativeMetrics(["l1"])]).fit(build("Pix2Pix"), loader("Pix2Pix"))


@pytest.fixture
def refused(capsys):
    """Runs a command that is refused; what it says."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main(list(words))
        assert left.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.fixture
def folders(tmp_path):
    for name, offset in (("out", 0), ("targets", 10)):
        (tmp_path / name).mkdir()
        for n in range(2):
            Image.new("RGB", (24, 20), (100 + offset, 100, 100)).save(tmp_path / name / f"{n}.png")
    return tmp_path


def test_pictures_of_anybody_beside_their_targets(folders, refused):
    words = ["evaluate", "--images", str(folders / "out"), "--against", str(folders / "targets")]
    main([*words, "--metrics", "l1,psnr", "--protocol", "sr_rgb", "--scale", "4", "-o", str(folders / "x.json")])
    report = json.loads((folders / "x.json").read_text())
    assert report["metrics"]["l1"] == pytest.approx(10 / 255 / 3)
    assert report["protocol"]["crop"] == 4
    assert "give --scale 4" in refused(*words, "--protocol", "sr_y")
    (folders / "targets" / "1.png").unlink()
    assert "1 of 2 pictures have no target of their name in" in refused(*words)
    Image.new("RGB", (24, 21)).save(folders / "targets" / "1.png")
    assert "1.png has 24 × 20 pixels, its target 24 × 21" in refused(*words)


def test_files_of_one_name_in_several_folders_are_all_measured(tmp_path, refused):
    for side, changed in (("out", 100), ("targets", 110)):
        for folder, value in (("a", changed), ("b", 100)):  # those of b are right
            (tmp_path / side / folder).mkdir(parents=True)
            Image.new("RGB", (24, 20), (value, 100, 100)).save(tmp_path / side / folder / "x.png")
    words = ["evaluate", "--images", str(tmp_path / "out"), "--against", str(tmp_path / "targets"), "--metrics", "l1"]
    main([*words, "-o", str(tmp_path / "x.json")])
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["source"]["count"] == 2
    assert report["metrics"]["l1"] == pytest.approx(10 / 255 / 3 / 2)
    Image.new("RGB", (24, 20)).save(tmp_path / "out" / "a" / "x.bmp")
    assert "1 names stand for several files in" in refused(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "is"], "there is no metric 'is' of pictures"),
        (["--baseline", "bicubik"], "did you mean bicubic"),
        (["--split", "test", "--data.dataset", "digits", "--protocol", "nothing"], "protocol 'nothing'"),
        (["--metrics", "cycle"], "cycle is measured of models with two directions"),
    ],
)
def test_what_cannot_be_measured_is_said(words, message, checkpoint, refused):
    assert message in refused("evaluate", str(checkpoint[0]), *words)
