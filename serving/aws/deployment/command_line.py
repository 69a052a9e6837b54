"""Command lines that stop with one line naming what is wrong, its value and the nearest name that would be right."""

import argparse
import difflib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from serving.errors import DeployError


class WrongCommandLine(DeployError):
    """The words are no command line of this command."""


class Parser(argparse.ArgumentParser):
    """argparse, without its shortened options and its usage page on each error."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **arguments)

    def error(self, message: str) -> NoReturn:
        raise WrongCommandLine(f"{self.prog.removeprefix('tokenport ')}: {message}")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Raises WrongCommandLine."""
        options, unknown = self.parse_known_args(list(words))
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            self.error(f"unknown {unknown[0]!r}" + (f"; did you mean {near[0]}?" if near else "; --help lists all"))
        return options


def bounded(minimum: float, maximum: float | None = None, *, kind: type[int] | type[float] = int) -> Callable[[str], Any]:
    """A number from `minimum` to `maximum`, which are AWS's limits."""
    told = f"{minimum} to {maximum}" if maximum is not None else f"at least {minimum}"

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number; {told}") from None
        if not minimum <= value <= (maximum if maximum is not None else value):
            raise argparse.ArgumentTypeError(f"{text} is out of range; {told}")
        return value

    return read


def matching(pattern: Any, told: str) -> Callable[[str], str]:
    """Text that `pattern` matches whole; `told` says what would be right."""

    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {told}")
        return text

    return read


def variable(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value
