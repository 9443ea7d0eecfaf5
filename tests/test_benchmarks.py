"""Long measurements in their small versions, so that they run when there is a machine for them."""

import json

import pytest
from launching import python

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
