"""What data, model and networks share is given once: image size, channels, latents and classes reach them all."""

from typing import Any

from jsonargparse import Namespace

import lit_gans.data
import lit_gans.models
from lit_gans.data import ImageDataModule
from lit_gans.data.own import is_own
from lit_gans.errors import UserError

__all__ = ("link", "options_of_data")

_NETWORKS = ("generator", "discriminator")


def link(options: Namespace, given: Namespace) -> None:
    """Hand on what was given in one place to the places in which it was not.

    What was given wins, that of the data before that of the networks; else networks get the size and the channels of
    the data set, and the generator the latents of the model. Only arguments of that name are touched, so that networks
    of one's own take part if they have them.

    Args:
        options: The resolved config, which is changed.
        given: Those of its values that the command line and config files named.

    Raises:
        UserError: for two numbers that contradict one another, with the options that would mend it.
    """
    places, said = _places(options), _places(given)
    if "dataset" in places["data"] and "class_path" not in options.data:
        for key in ("image_size", "channels"):
            _share(key, places, said, _fact(options.data, key))
    if "class_path" in options.data:
        _share_pictures(options, places, said)
    _share_latents(places, said)
    _share_classes(options.model.class_path, places, said)


def options_of_data(options: Namespace) -> Namespace:
    """The arguments of the data module, which stand deeper where its class is named."""
    data = options.get("data") or Namespace()
    return data.get("init_args", Namespace()) if "class_path" in data else data


def _places(options: Namespace) -> dict[str, Any]:
    """The arguments of data, model and networks, as far as they are there."""
    model = (options.get("model") or Namespace()).get("init_args") or Namespace()
    places = {"data": options_of_data(options), "model": model}
    for name in _NETWORKS:
        network = model.get(name)
        places[name] = network.get("init_args") if isinstance(network, Namespace) else None
    return {name: place if isinstance(place, Namespace) else Namespace() for name, place in places.items()}


def _fact(data: Namespace, key: str) -> Any:
    """The size or the channels that a data set has by itself; None where only its files could tell."""
    if data.dataset == "folder" or is_own(str(data.dataset)):
        return None
    try:
        return getattr(ImageDataModule(data.dataset), key)
    except (AttributeError, ValueError, TypeError):  # of points, or of a name that is refused later
        return None


def _share(key: str, places: dict[str, Any], given: dict[str, Any], fact: Any) -> None:
    packed = "pack" in places["model"]  # its discriminator sees several images as one of more channels
    names = [name for name in ("data", *_NETWORKS) if key in places[name]]
    names = [name for name in names if not (packed and key == "channels" and name == "discriminator")]
    said = {name: given[name][key] for name in names if given[name].get(key) is not None}
    if len(set(said.values())) > 1:
        raise UserError(_contradiction(key, said))
    value = next(iter(said.values()), fact)
    for name in names if value is not None else ():
        if name not in said and (name != "data" or value != fact):
            places[name][key] = value
    pack = places["model"].get("pack")
    if packed and key == "channels" and value and key not in given["discriminator"]:
        places["discriminator"][key] = value * int(pack or 1)


def _contradiction(key: str, said: dict[str, Any]) -> str:
    told = ", ".join(f"{'data' if name == 'data' else f'the {name}'} {value}" for name, value in said.items())
    options = {name: f"--{'data' if name == 'data' else f'model.{name}'}.{key}" for name in said}
    wanted = next(iter(said.values()))
    mend = " ".join(f"{options[name]} {wanted}" for name, value in said.items() if value != wanted)
    return f"{key} is given several times: {told}; leave all but one out, or add {mend}"


def _share_latents(places: dict[str, Any], given: dict[str, Any]) -> None:
    model, generator = places["model"], places["generator"]
    if "latent_dim" not in model or "latent_dim" not in generator or "categorical" in model:  # codes are appended
        return
    ours, its = given["model"].get("latent_dim"), given["generator"].get("latent_dim")
    if None not in (ours, its) and ours != its:
        raise UserError(
            f"latent_dim is given several times: the model {ours}, the generator {its}; leave one of them out, or add "
            f"--model.generator.latent_dim {ours}"
        )
    value = next(value for value in (ours, its, model.latent_dim) if value is not None)
    model.latent_dim = generator.latent_dim = value


def _share_classes(class_path: str, places: dict[str, Any], given: dict[str, Any]) -> None:
    classes = places["model"].get("num_classes")
    cls: Any = getattr(lit_gans.models, class_path.rpartition(".")[2], None)
    for name in _NETWORKS if classes is not None and cls is not None else ():
        if name == "discriminator" and not cls.traits.shows_labels:
            continue
        if "num_classes" in places[name] and "num_classes" not in given[name]:
            places[name].num_classes = classes


def _share_pictures(options: Namespace, places: dict[str, Any], given: dict[str, Any]) -> None:
    """Networks between pictures get the channels, the scale and the size of the pairs."""
    cls: Any = getattr(lit_gans.models, options.model.class_path.rpartition(".")[2], None)
    kind: Any = getattr(lit_gans.data, options.data.class_path.rpartition(".")[2], None)
    if kind is None or cls is None or not issubclass(cls, lit_gans.models.Translation):
        return
    try:
        data = kind(**options_of_data(options).as_dict())
        source, target, scale, size = data.source_channels, data.channels, data.scale, data.image_size
    except (AttributeError, ValueError, TypeError, OSError):  # what is wrong with the data is said in its setup
        return
    seen = target + (source if cls.shows_source and not cls.takes_mask else int(cls.takes_mask))
    made = {"in_channels": source, "out_channels": target}
    facts = {
        "generator": {**made, "channels": target, "scale": scale, "image_size": size},
        "discriminator": {"in_channels": seen, "channels": target, "image_size": size and size // 2},
    }
    for name, its in facts.items():
        for key, value in its.items():
            if key in places[name] and given[name].get(key) is None and value:
                places[name][key] = value
