"""Puts functions in the place of vLLM's, for the changes that `plugin.py` installs. vLLM may load plugins more than once in a process."""

import functools
from collections.abc import Callable
from typing import Any

_MARK = "replaced_by_tokenport"


def replace(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `make(original)` in the place of the function `name` of a class or module. Does nothing where `make` has done so before."""
    original = getattr(owner, name)
    # Several changes of one function are stacked; each is made once.
    made: frozenset[str] = getattr(original, _MARK, frozenset())
    change = f"{make.__module__}.{make.__qualname__}"
    if change in made:
        return
    replacement = functools.wraps(original)(make(original))
    setattr(replacement, _MARK, made | {change})
    setattr(owner, name, replacement)
