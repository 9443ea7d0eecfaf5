"""Modules that remember with which arguments they were built, so that a checkpoint can build them again."""

import inspect
from typing import Any

from torch import nn

__all__ = ("Recorded",)


class Recorded(nn.Module):
    """A module that keeps the arguments it was built with, by name, in ``init_args``.

    ``{"class_path": ..., "init_args": module.init_args}`` is then all that a checkpoint needs to build it again. The
    record follows copies and pickles of the module.
    """

    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Recorded":
        """Build the empty module and write the record; ``__init__`` then takes the same arguments."""
        module = super().__new__(cls)
        code = inspect.unwrap(cls.__init__).__code__
        names = code.co_varnames[1 : code.co_argcount]
        if len(args) <= len(names):  # else some have no name, and nothing can be built from the record
            # nn.Module's own __setattr__ is not ready before __init__
            object.__setattr__(module, "init_args", dict(zip(names, args, strict=False)) | kwargs)
        return module
