"""``evaluate`` and ``compare``: from a checkpoint, or anybody's images, to a stamped result, and to a verdict."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import warm
from lightning.fabric.strategies import DDPStrategy
from PIL import Image
from refusals import refused

from lit_gans.cli import main
from lit_gans.commands import evaluation
from lit_gans.data import ImageDataModule
from lit_gans.functional import to_uint8
from lit_gans.metrics import Classifier, FrechetDistance
from lit_gans.models import GAN

ROOT = Path(__file__).parents[1]
FEW = ["-n", "150", "--kid_subset_size", "50"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of the quickstart after a few steps."""
    folder = tmp_path_factory.mktemp("run")
    quickstart = str(ROOT / "configs" / "quickstart.yaml")
    options = ["--trainer.max_steps", "30", "--trainer.enable_progress_bar", "false", "--monitor", "null"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", quickstart, *options, "--trainer.callbacks", "[]"])
    return folder / "runs" / "gan-digits" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))


def evaluate(*words, output="result.json"):
    main(["evaluate", *map(str, words), "-o", output, "--overwrite"])
    return json.loads(Path(output).read_text())


@pytest.fixture
def pictures(tmp_path):
    """Forty PNG files of different sizes."""
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for i in range(40):
        side = 8 + i % 3
        Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(folder / f"{i:02}.png")
    return folder


class TestCheckpoint:
    def test_nothing_but_the_checkpoint_is_needed(self, trained, capsys):
        result = evaluate(trained, *FEW)
        assert list(result["metrics"]) == [
            *("fd_digits", "is", "is_std", "kid", "kid_std", "precision", "recall", "density", "coverage")
        ]
        stamp = result["protocol"]
        assert stamp["data"] == {
            "dataset": "digits", "split": "train", "limit": None, "image_size": 8, "channels": 1, "count": 1438
        }  # fmt: skip
        assert (stamp["fakes"], stamp["seed"], stamp["ema"], stamp["name"]) == (150, 0, True, "custom")
        assert stamp["extractor"]["name"] == "digits"
        low, high = result["intervals"]["fd_digits"]
        assert low < result["metrics"]["fd_digits"] < high
        assert result["source"] == {"checkpoint": "last.ckpt", "model": "GAN", "images_seen": 30 * 64}
        table = capsys.readouterr().out
        assert f"{result['metrics']['fd_digits']:.5g}" in table
        assert "150 images, averaged weights, seed 0" in table
        assert "against 1438 of digits train" in table

    def test_values_are_those_of_the_metrics_used_by_hand(self, trained):
        result = evaluate(trained, *FEW, "--metrics", "fd", "--resamples", "0")
        metric = FrechetDistance(Classifier("digits"))
        metric.update(ImageDataModule("digits").source("train").images(torch.arange(1438)), real=True)
        metric.update(to_uint8(GAN.load_from_checkpoint(trained).sample(150, seed=0)), real=False)
        assert result["metrics"] == {"fd_digits": pytest.approx(float(metric.compute()), rel=1e-9)}
        assert not result["intervals"]

    def test_the_same_again_and_other_weights_seed_and_data(self, trained):
        def value(*words):
            return evaluate(trained, *FEW, "--metrics", "fd", "--resamples", "0", *words)["metrics"]["fd_digits"]

        first = value()
        assert value() == first
        assert len({first, value("--live"), value("--seed", "1"), value("--data.limit", "300")}) == 4

    def test_the_second_time_the_data_are_not_needed(self, trained, monkeypatch):
        first = evaluate(trained, *FEW)
        monkeypatch.setattr(ImageDataModule, "open", lambda *_: pytest.fail("opened"))
        assert evaluate(trained, *FEW)["metrics"] == first["metrics"]

    def test_presets(self, trained):
        quick = evaluate(trained, "--protocol", "quick", "--metrics", "fid", "--resamples", "0")
        assert (quick["protocol"]["name"], quick["protocol"]["fakes"]) == ("quick", 5000)
        clean = evaluate(trained, "--protocol", "cleanfid", "-n", "200", "--metrics", "fd", "--resamples", "0")
        assert clean["protocol"]["extractor"]["resize"] == "pil-bicubic"

    @pytest.mark.parametrize(
        "start", ["forkserver", pytest.param("spawn", marks=[pytest.mark.slow, pytest.mark.exhaustive])]
    )
    def test_two_processes_give_the_same(self, start, trained, monkeypatch, capsys):
        """As they are started by the command, where all is asked for; by default from one that has imported torch."""
        warm()
        whole = evaluation.Fabric

        def fabric(devices, strategy, **words):
            strategy = DDPStrategy(accelerator="cpu", start_method=start) if devices > 1 else strategy
            return whole(devices=devices, strategy=strategy, **words | ({"accelerator": "auto"} if devices > 1 else {}))

        monkeypatch.setattr(evaluation, "Fabric", fabric)
        one = evaluate(trained, *FEW)
        two = evaluate(trained, *FEW, "--devices", "2", "--accelerator", "cpu", output="two.json")
        assert (one["protocol"]["processes"], two["protocol"]["processes"]) == (1, 2)
        assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-9)
        main(["compare", "result.json", "two.json"])
        words = ["--protocol", "fid10k_test", "--devices", "2", "--accelerator", "cpu"]
        assert "takes 10000 real images, but the test split has 359" in refused(capsys, "evaluate", trained, *words)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--protocol", "fid50k"], "unknown protocol 'fid50k': did you mean fid50k_full"),
            (["--protocol", "fid10k_test"], "takes 10000 real images, but the test split has 359"),
            (["--protocol", "mimicry"], "takes 50000 real images, but the train split has 1438"),
            (["--metrics", "fud"], "no metric 'fud': there are fd"),
            (["--extractor", "digit"], "no extractor 'digit'"),
            (["-n", "1"], "fakes of a protocol must be at least 2, got 1"),
            (["--truncation", "0.7"], "GAN knows no truncation"),
            (["--data.image_size", "16"], r"makes images (1, 8, 8), but those of digits are (1, 16, 16)"),
            (["--data.dataset", "mnist"], r"makes images (1, 8, 8), but those of mnist are (1, 28, 28)"),
            (["--devices", "0"], "--devices must be at least 1"),
            (["--images", "x.zip"], "there is nothing at x.zip"),
            (["--sed", "3"], "unknown option 'sed': did you mean seed"),
        ],
    )
    def test_what_cannot_work_is_one_sentence(self, trained, capsys, words, message):
        assert message in refused(capsys, "evaluate", trained, *words)

    def test_fewer_images_than_a_subset_of_kid_are_measured_and_told(self, trained, capsys):
        with pytest.warns(UserWarning, match="kid draws subsets of 50 images, in place of 1000"):
            main(["evaluate", str(trained), "-n", "50", "--metrics", "kid", "-o", "few.json"])
        assert json.loads(Path("few.json").read_text("utf-8"))["protocol"]["kid_subset_size"] == 50
        assert "kid" in capsys.readouterr().out

    def test_no_weights_of_inception(self, trained, capsys, monkeypatch):
        monkeypatch.setenv("LIT_GANS_INCEPTION", "nowhere.pth")
        assert "LIT_GANS_INCEPTION names nowhere.pth" in refused(
            capsys, "evaluate", trained, "--extractor", "inception"
        )

    def test_a_result_is_never_overwritten_unasked(self, trained, capsys):
        Path("result.json").write_text("mine")
        assert "result.json exists" in refused(capsys, "evaluate", trained, "-o", "result.json")
        assert Path("result.json").read_text() == "mine"

    def test_a_generator_that_makes_nan(self, trained, capsys):
        checkpoint = torch.load(trained, weights_only=True)
        for key, value in checkpoint["state_dict"].items():
            if key.startswith("g_ema") and value.is_floating_point():
                value.fill_(torch.nan)
        torch.save(checkpoint, "nan.ckpt")
        assert "makes NaN or infinite values" in refused(capsys, "evaluate", "nan.ckpt", *FEW)

    def test_what_is_no_checkpoint(self, capsys):
        assert "no checkpoint at nowhere.ckpt" in refused(capsys, "evaluate", "nowhere.ckpt")


class TestImages:
    METRICS = ("--metrics", "fd", "pr", "--resamples", "0", "--data.dataset", "digits")

    def test_folder_zip_and_array_are_one(self, pictures, tmp_path):
        results = [evaluate("--images", pictures, *self.METRICS)]
        with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
            for file in sorted(pictures.iterdir()):
                archive.write(file, file.name)
        results.append(evaluate("--images", tmp_path / "pictures.zip", *self.METRICS))
        assert results[0]["metrics"] == results[1]["metrics"]
        assert results[0]["protocol"]["fakes"] == 40
        assert results[0]["protocol"]["seed"] == results[0]["protocol"]["ema"] == "unknown"
        assert results[0]["source"] == {"images": "pictures", "count": 40}
        same_size = [file for file in sorted(pictures.iterdir()) if Image.open(file).size == (8, 8)]
        shutil.rmtree(tmp_path / "some", ignore_errors=True)
        (tmp_path / "some").mkdir()
        for file in same_size:
            shutil.copy(file, tmp_path / "some")
        array = np.stack([np.asarray(Image.open(file)) for file in same_size])
        for name, value in (("grey", array), ("channel", array[..., None])):
            np.savez(tmp_path / f"{name}.npz", images=value)
        np.savez(tmp_path / "adm.npz", array[..., None])  # one array without a name, as other libraries write
        values = [
            evaluate("--images", tmp_path / x, *self.METRICS) for x in ("some", "grey.npz", "channel.npz", "adm.npz")
        ]
        assert all(value["metrics"] == values[0]["metrics"] for value in values)

    def test_samples_in_a_file_count_as_the_checkpoint_they_are_of(self, trained):
        main(["sample", str(trained), "-n", "150", "-o", "samples.npz"])
        given, own = evaluate("--images", "samples.npz", *self.METRICS), evaluate(trained, "-n", "150", *self.METRICS)
        assert given["metrics"] == pytest.approx(own["metrics"], rel=1e-9)
        Path("one.json").write_text(json.dumps(given))
        Path("two.json").write_text(json.dumps(own))
        main(["compare", "one.json", "two.json"])

    def test_a_preset_takes_as_many_as_it_says(self, pictures, capsys):
        line = refused(capsys, "evaluate", "--images", pictures, "--protocol", "quick", *self.METRICS)
        assert "holds 40 images, the protocol quick takes 5000: make more, or leave out --protocol" in line

    def test_a_broken_file_is_named_before_the_work(self, pictures, capsys, monkeypatch):
        whole = (pictures / "07.png").read_bytes()
        (pictures / "07.png").write_bytes(whole[: len(whole) // 2])
        monkeypatch.setattr("lit_gans.commands.evaluation.measure", lambda *_: pytest.fail("measured"))
        assert "cannot read 1 image file" in (line := refused(capsys, "evaluate", "--images", pictures, *self.METRICS))
        assert "07.png" in line

    def test_options_for_checkpoints_are_refused(self, pictures, capsys):
        for words in (["--live"], ["--seed", "1"], ["--truncation", "0.5"]):
            line = refused(capsys, "evaluate", "--images", pictures, *self.METRICS, *words)
            assert "are for checkpoints" in line

    def test_arrays_of_another_form(self, capsys):
        np.savez("float.npz", images=np.zeros((4, 8, 8, 3), np.float32))
        np.savez("first.npz", images=np.zeros((4, 3, 8, 8), np.uint8))
        Path("broken.npz").write_text("no zip")
        assert "must be uint8, got torch.float32" in refused(capsys, "evaluate", "--images", "float.npz", *self.METRICS)
        line = refused(capsys, "evaluate", "--images", "first.npz", *self.METRICS)
        assert "must be (N, H, W, C) with C = 1 or 3, got shape (4, 3, 8, 8)" in line
        assert "broken.npz is no .npz with an array" in refused(
            capsys, "evaluate", "--images", "broken.npz", *self.METRICS
        )
        assert "nothing at nowhere" in refused(capsys, "evaluate", "--images", "nowhere", *self.METRICS)
        np.savez("labelled.npz", np.zeros(4, np.int64), np.zeros((4, 8, 8, 2), np.uint8))
        assert "arr_1 in labelled.npz" in refused(capsys, "evaluate", "--images", "labelled.npz", *self.METRICS)
        line = refused(capsys, "evaluate", "--images", "first.npz", "--data.root", "somewhere")
        assert "say which real images to compare with, for example --data.dataset cifar10" in line


class TestCompare:
    @staticmethod
    def write(name, fd, interval=(0.0, 0.0), **changes):
        stamp = {"fakes": 5000, "seed": 0, "extractor": {"name": "digits"}, "versions": {"torch": "2.9"}, **changes}
        result = {"metrics": {"fd_digits": fd, "is": 10 - fd}, "intervals": {}, "protocol": stamp}
        if interval is not None:
            result["intervals"] = {"fd_digits": [fd - interval[0], fd + interval[0]], "is": [9, 9]}
        Path(name).write_text(json.dumps(result))

    def compared(self, capsys):
        main(["compare", "a.json", "b.json"])
        return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}

    def test_which_is_better(self, capsys):
        self.write("a.json", 3.0, (0.3, 0.3))
        self.write("b.json", 2.0, (0.4, 0.4))
        lines = self.compared(capsys)
        assert "-1 ± 0.5  b.json is better" in lines["fd_digits"]
        assert "b.json is better" in lines["is"]
        self.write("b.json", 3.4, (0.4, 0.4))
        assert "+0.4 ± 0.5  no clear difference" in self.compared(capsys)["fd_digits"]
        self.write("b.json", 3.0, (np.nan, np.nan))
        assert "no clear difference" in self.compared(capsys)["fd_digits"]
        self.write("b.json", 9.0, None)
        assert self.compared(capsys)["fd_digits"].endswith("+6")

    def test_versions_are_noted(self, capsys):
        self.write("a.json", 3.0)
        self.write("b.json", 2.0, versions={"torch": "3.0"})
        assert "note: measured with torch 2.9 and 3.0" in self.compared(capsys)["note:"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"fakes": 10}, "differ in fakes: 5000 and 10"),
            ({"extractor": {"name": "mnist"}}, "differ in extractor.name: 'digits' and 'mnist'"),
            ({"resize": "tf1", "seed": 3}, "differ in seed: 0 and 3; resize: None and 'tf1'"),
        ],
    )
    def test_unlike_results_are_refused_by_the_field(self, capsys, changes, message):
        self.write("a.json", 3.0)
        self.write("b.json", 2.0, **changes)
        assert message in refused(capsys, "compare", "a.json", "b.json")

    def test_what_is_no_result(self, capsys):
        self.write("a.json", 3.0)
        Path("b.json").write_text("{}")
        assert "b.json is no result of evaluate" in refused(capsys, "compare", "a.json", "b.json")
        Path("b.json").write_text('{"metrics": [1], "protocol": [1]}')
        assert "b.json is no result of evaluate" in refused(capsys, "compare", "a.json", "b.json")
        Path("b.json").write_text("not json")
        assert "b.json cannot be read as JSON" in refused(capsys, "compare", "a.json", "b.json")
        assert "no such file: c.json" in refused(capsys, "compare", "a.json", "c.json")
