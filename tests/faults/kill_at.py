"""Runs a command that kills itself (SIGKILL) at a named point: `kill_at.py POINT MODULE ARGS…`.

POINT is `module:name@before#2` or `@after#2` (the second call of a function, before or after it), or `@item#2` (a
generator function: when its second item is asked for). The product knows nothing of it.
"""

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Wrap the function that the point names."""
    place, _, when = point.partition("@")
    module_name, _, qualified = place.partition(":")
    moment, _, number = when.partition("#")
    owner: Any = importlib.import_module(module_name)
    *path, name = qualified.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, _wrap(getattr(owner, name), moment, int(number)))


def _wrap(function: Callable[..., Any], moment: str, number: int) -> Callable[..., Any]:
    calls = count(1)

    @functools.wraps(function)
    def wrapped(*args: Any, **named: Any) -> Any:
        is_it = next(calls) == number
        if is_it and moment == "before":
            _die()
        result = function(*args, **named)
        if is_it and moment == "after":
            _die()
        return result

    @functools.wraps(function)
    def generating(*args: Any, **named: Any) -> Iterator[Any]:
        for index, item in enumerate(function(*args, **named), start=1):
            if index == number:
                _die()
            yield item

    return generating if moment == "item" else wrapped


if __name__ == "__main__":
    arm(sys.argv[1])
    module = importlib.import_module(sys.argv[2])
    sys.argv = [sys.argv[2], *sys.argv[3:]]
    module.main()
