"""More processes than a machine can bear are refused before any starts."""

import os

import pytest
import torch
from refusals import refused

from lit_gans.commands import processes
from lit_gans.commands.processes import available_memory, refuse_too_many
from lit_gans.errors import UserError


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Four cores, no GPU, 8 GiB."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(processes, "available_memory", lambda: 8.0)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)


def test_more_processes_than_cores_are_refused_by_both_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--trainer.accelerator", "cpu", "--trainer.devices", "99"]
    message = refused(capsys, "fit", "--config", "quickstart", *words)
    assert "--trainer.devices asks for 99 processes, this machine has 4 cores" in message
    message = refused(capsys, "evaluate", "--images", ".", "--data.dataset", "digits", "--devices", 99)
    assert "--devices asks for 99 processes, this machine has 4 cores" in message
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("devices", "accelerator", "told"),
    [
        (5, "cpu", "5 processes, this machine has 4 cores"),
        ("5", "auto", "5 processes, this machine has 4 cores"),
        (2, "gpu", "2 GPUs, this machine has 0"),
        ([0, 1, 2], "cuda", "3 GPUs, this machine has 0"),
        ("0,1", "gpu", "2 GPUs, this machine has 0"),
    ],
)
def test_both_numbers_are_named(devices, accelerator, told):
    with pytest.raises(UserError, match=told):
        refuse_too_many("--trainer.devices", devices, accelerator)


def test_more_than_memory_allows(monkeypatch):
    monkeypatch.setattr(processes, "available_memory", lambda: 1.5)
    with pytest.raises(UserError, match=r"4 processes, which take some 3\.2 GiB of memory, and 1\.5 GiB are available"):
        refuse_too_many("--trainer.devices", 4, "cpu")
    refuse_too_many("--trainer.devices", 2, "cpu")


@pytest.mark.parametrize("devices", ["auto", 1, 4, "4", [0, 1, 2, 3], -1, None])
def test_what_the_machine_bears_passes(devices):
    refuse_too_many("--trainer.devices", devices, "cpu")


@pytest.mark.parametrize("name", ["LOCAL_RANK", "SLURM_NTASKS"])
def test_processes_that_run_already_are_not_counted_again(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    refuse_too_many("--trainer.devices", 99, "cpu")


def test_gpus_are_counted_where_there_are_some(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    refuse_too_many("--trainer.devices", 8, "auto")
    with pytest.raises(UserError, match="9 GPUs, this machine has 8"):
        refuse_too_many("--trainer.devices", 9, "auto")


def test_memory_is_told_in_gibibytes():
    memory = available_memory()
    assert memory is None or 0 < memory < 2**14
