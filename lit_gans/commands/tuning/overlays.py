"""What is found, and each trial, as an overlay: a config that goes onto another."""

from pathlib import Path
from typing import Any

from lit_gans.commands.tuning.report import guard_of
from lit_gans.commands.tuning.search import Outcome, Parameters
from lit_gans.commands.tuning.space import ARGUMENTS, short

__all__ = ("overlay_text", "settings", "yaml_of")


def settings(parameters: Parameters, config: dict[str, Any], steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """The overlay of one run: its parameters, its end, its folder."""
    before = config["trainer"]
    trainer: dict[str, Any] = {
        "max_steps": steps,
        "max_epochs": -1,
        **dict.fromkeys(("max_time", "min_steps", "min_epochs")),
        "devices": 1 if before["devices"] == "auto" else before["devices"],
        "enable_progress_bar": False,
        "default_root_dir": str(folder),
    }
    loggers = before["logger"] if isinstance(before["logger"], list) else [before["logger"]]
    if all(isinstance(entry, dict) for entry in loggers):
        trainer["logger"] = [relocated(entry, before["default_root_dir"]) for entry in loggers]
    return {"seed_everything": seed, "trainer": trainer, **overlay_of(parameters, config)}


def overlay_of(parameters: Parameters, config: dict[str, Any]) -> dict[str, Any]:
    """The parameters as they stand in a config."""
    model: dict[str, Any] = {name: parameters[name] for name in ARGUMENTS if name in parameters}
    weights = {name.removeprefix("weight."): parameters[name] for name in parameters if name.startswith("weight.")}
    if weights:
        model["regularizers"] = [
            {**entry, "init_args": {**entry["init_args"], "weight": weights[short(entry)]}}
            if short(entry) in weights
            else entry
            for entry in config["model"]["init_args"]["regularizers"]
        ]
    overlay: dict[str, Any] = {"model": {"init_args": model}} if model else {}
    if "batch_size" in parameters:
        data = {"batch_size": parameters["batch_size"]}
        overlay["data"] = {"init_args": data} if "class_path" in config.get("data", {}) else data
    return overlay


def overlay_text(best: Outcome, config: dict[str, Any], trials: int, seed: int) -> str:
    """The overlay, and what speaks for it."""
    score = "no metric" if best.metric is None else f"{config['monitor']} {best.metric:.5g}"
    return (
        f"# trial {best.trial}, the best of {trials}: {score} after {best.steps} steps, guard: {guard_of(best)}; "
        f"seed {seed}\n{yaml_of(overlay_of(best.parameters, config))}"
    )


def relocated(logger: dict[str, Any], root: str) -> dict[str, Any]:
    """A logger that goes to the folder of each run, where it would have gone to the folder of all runs."""
    arguments = logger.get("init_args") or {}
    here = Path(arguments.get("save_dir") or ".") in (Path("."), Path(root))
    return {**logger, "init_args": {**arguments, "save_dir": "."}} if here else logger


def yaml_of(config: dict[str, Any]) -> str:
    """A config as text."""
    import yaml

    return yaml.safe_dump(config, sort_keys=False)
