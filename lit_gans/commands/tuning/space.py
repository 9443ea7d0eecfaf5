"""What is searched: ranges and choices, and what of it a config has."""

import argparse
import math
from typing import Any

from lit_gans.commands.tuning.search import Parameters, Space
from lit_gans.errors import UserError, unknown

__all__ = ("ARGUMENTS", "check", "data_options", "name_of", "own_values", "short", "space_of")

ARGUMENTS = ("g_lr", "d_lr", "gp_weight")  # of models


def space_of(options: argparse.Namespace) -> Space:
    """Ranges and choices by name.

    Raises:
        UserError: if there is one that no value can be drawn from.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    space: Space = {}
    for name in (*ARGUMENTS, *(name for name in given if name.startswith("weight."))):
        if name in given:
            low, high = given[name]
            if not 0 < low < high < math.inf:
                raise UserError(f"--{name} {low:g} {high:g}: LOW must be above 0, and HIGH above LOW")
            space[name] = (low, high)
    if "batch_size" in given:
        if (least := min(given["batch_size"])) < 1:
            raise UserError(f"--batch_size must be at least 1, got {least}")
        space["batch_size"] = list(dict.fromkeys(given["batch_size"]))
    if list(space) == ["batch_size"] and options.trials > len(space["batch_size"]):
        raise UserError(
            f"--batch_size alone makes {len(space['batch_size'])} trials, --trials asks for {options.trials}"
        )
    return space


def check(space: Space, config: dict[str, Any]) -> None:
    """Refuse what the config does not have, and what a search cannot work with.

    Raises:
        UserError: naming it.
    """
    trainer, model = config["trainer"], config["model"]["init_args"]
    if not space:
        raise UserError("say what to search, for example --g_lr 1e-4 2e-3 --d_lr 1e-4 2e-3 --batch_size 32 64 128")
    for name in ARGUMENTS:
        if name in space and name not in model:
            there = ", ".join(["g_lr", "d_lr", *(f"weight.{short(entry)}" for entry in model["regularizers"] or ())])
            raise UserError(f"{short(config['model'])} takes no {name}; there are {there}")
        player = name.removesuffix("_lr")
        if name in space and player != name and model[f"{player}_optimizer"] is not None:
            raise UserError(f"--{name} would change nothing: {player}_optimizer brings its own learning rate")
    listed = [short(entry) for entry in model["regularizers"] or ()]
    for name in (name.removeprefix("weight.") for name in space if name.startswith("weight.")):
        if listed.count(name) != 1:
            raise UserError(
                f"the config has {listed.count(name)} regularizers {name}: a weight needs one"
                if listed.count(name) or not listed
                else unknown("regularizer", name, listed)
            )
    devices = trainer["devices"]
    if (devices not in ("auto", 1, "1") and not (isinstance(devices, list) and len(devices) == 1)) or (
        trainer["num_nodes"] != 1
    ):
        raise UserError("a search trains on one device: --trainer.devices 1 --trainer.num_nodes 1")
    if config["ckpt_path"]:
        raise UserError("a search starts from the beginning: leave out --ckpt_path")
    if trainer["fast_dev_run"]:
        raise UserError("a search needs results to compare: leave out --trainer.fast_dev_run")
    if trainer["enable_checkpointing"] is False:
        raise UserError("trials are continued from checkpoints: leave out --trainer.enable_checkpointing false")


def own_values(space: Space, config: dict[str, Any]) -> Parameters:
    """What the config says of all that is searched; the middle of the range of a weight that a rule would give."""
    model, regularizers = config["model"]["init_args"], config["model"]["init_args"]["regularizers"]
    weights = {f"weight.{short(entry)}": entry["init_args"]["weight"] for entry in regularizers or ()}
    there = {**model, **weights, "batch_size": data_options(config)["batch_size"]}
    return {name: _middle(allowed) if there[name] is None else there[name] for name, allowed in space.items()}


def _middle(allowed: Any) -> float:
    """The geometric mean of a range."""
    low, high = allowed
    return float(math.sqrt(low * high))


def data_options(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the data, which stand deeper where its class is named."""
    data: dict[str, Any] = config["data"]
    return data["init_args"] if "class_path" in data else data


def short(entry: dict[str, Any]) -> str:
    """The name of a class in a config."""
    return str(entry["class_path"]).rpartition(".")[2]


def name_of(config: dict[str, Any]) -> str:
    """What is trained, on what."""
    return f"{short(config['model'])}-{data_options(config)['dataset']}".lower()
