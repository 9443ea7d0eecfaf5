"""What a module was built with, by name, whatever the form of its ``__init__``."""

import copy
import functools

import pytest

from lit_gans.recorded import Recorded


def wrapped(init):
    @functools.wraps(init)
    def inner(*args, **kwargs):
        return init(*args, **kwargs)

    return inner


class Plain(Recorded):
    def __init__(self, a, b=2, *, c=3):
        super().__init__()
        local = a  # a local variable is no argument
        self.sum = local + b + c


class Wrapped(Recorded):
    @wrapped
    def __init__(self, a, b=2):
        super().__init__()


class Rest(Recorded):
    def __init__(self, a, *rest, b=1):
        super().__init__()


@pytest.mark.parametrize("cls", [Plain, Wrapped])
def test_arguments_by_position_and_by_name(cls):
    assert cls(1).init_args == {"a": 1}
    assert cls(1, 5).init_args == {"a": 1, "b": 5}
    assert cls(b=5, a=1).init_args == {"a": 1, "b": 5}
    assert copy.deepcopy(cls(1, b=5)).init_args == {"a": 1, "b": 5}
    assert Plain(**Plain(1, 5, c=7).init_args).sum == 13


def test_arguments_without_a_name_leave_no_record():
    assert Rest(1, b=4).init_args == {"a": 1, "b": 4}
    assert not hasattr(Rest(1, 2, 3), "init_args")
