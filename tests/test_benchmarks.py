"""Long measurements in their small versions, so that they run when there is a machine for them."""

import json
import os
import time
import warnings
from pathlib import Path

import pytest
import torch
from launching import python
from lightning import Callback
from toys import build, loader

PARTS = {"parity", "resume", "guard", "waits", "processes", "features", "memory", "speed", "compiled"}


@pytest.mark.slow
def test_what_only_a_gpu_can_tell_runs_on_a_cpu(tmp_path):
    done = python("-m", "benchmarks.gpu", "-o", tmp_path / "gpu.json", "--device", "cpu", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert result["parts"].keys() == PARTS
    elsewhere = {"waits", "16-mixed"}
    for name, part in result["parts"].items():
        assert part["rows"], name
        for row in part["rows"]:
            there = name in elsewhere or any(row["name"].endswith(f", {what}") for what in elsewhere)
            assert row["state"] == ("not on this device" if there else "ok"), row
        assert part["state"] == ("not on this device" if name in elsewhere else "ok")
        assert f"\n{name}" in done.stdout


def test_waits_are_counted_by_step(monkeypatch):
    """As CUDA would tell of them: a callback waits at every logging step, and once more at step 13."""
    from benchmarks.gpu import speed
    from benchmarks.gpu.setting import Setting

    class Waiting(Callback):
        def __init__(self, *steps):
            self.steps = steps

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step % 8 == 0 or trainer.global_step in self.steps:
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    found = []
    for callback in (Waiting(), Waiting(13)):
        setting = Setting("cpu", True, time.monotonic() + 60)
        found.append(speed.count_waits(setting, build("GAN"), loader(n=64), False, callback))
    torch.set_warn_always(False)
    assert found[0] == {"waits_of_a_step": 0, "of_a_logging_step": 1, "pass": True}
    (place, count), *others = found[1].pop("where").items()
    assert found[1] == {"waits_of_a_step": 1, "of_a_logging_step": 1, "pass": False}
    assert place.startswith("test_benchmarks.py:")
    assert (count, others) == (1, [])


def test_growth_is_measured(tmp_path):
    words = ("--quick", "--only", "batch", "startup", "--output", tmp_path)
    done = python("-m", "benchmarks.growth", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "growth.json").read_text("utf-8"))["parts"]
    (step,), folders = parts["batch"], parts["startup"]
    assert step["exponents"]["seconds"]["of_the_work"] == pytest.approx(1, abs=0.01)  # operations are counted
    assert [curve["curve"] for curve in folders] == ["headers alone", "into memory"]
    assert all(len(curve["seconds"]) == len(curve["sizes"]) == 2 for curve in (step, *folders))
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    assert "| startup (200 to 400) | into memory | time |" in (tmp_path / "growth.md").read_text("utf-8")


def test_an_exponent_is_that_of_a_power_law():
    from benchmarks.growth import Point, exponents

    sizes = (1, 10, 100)
    fast = exponents(sizes, [Point("", n**2, n, None, None) for n in sizes])
    assert (fast["seconds"]["exponent"], fast["seconds"]["of_the_work"], fast["seconds"]["pass"]) == (2, 1, False)
    assert exponents(sizes, [Point("", 3 * n, 7 * n) for n in sizes])["seconds"]["pass"]


def hang():
    yield 1
    time.sleep(60)


def crash():
    yield 1
    os._exit(3)


def test_a_part_that_hangs_or_crashes_ends(tmp_path):
    words = "from test_benchmarks import *; print(*ends(crash, 20), *ends(hang, 1))"
    done = python("-c", words, cwd=Path(__file__).parent)
    assert done.stdout.split("\n")[0] == "1 ended with code 3 1 took longer than 1 s", done.stdout + done.stderr


def ends(function, seconds):
    """What comes of it before it ends, and how it ends."""
    from benchmarks.measuring import in_process

    try:
        yield from in_process(function, seconds=seconds)
    except (RuntimeError, TimeoutError) as error:
        yield str(error).partition(" ")[2].removeprefix("process ")
