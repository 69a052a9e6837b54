"""Command lines whose errors are one line: what is wrong, and the nearest option that there is."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

_WRONG_COMMAND_LINE = 2
_UNKNOWN = "unrecognized arguments: "
"""How argparse begins what it says of words that no option takes."""


class OneLineParser(argparse.ArgumentParser):
    """argparse without shortened options and without the usage in front of each error."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """End the process with one line."""
        if message.startswith(_UNKNOWN):
            message = self._unknown(message.removeprefix(_UNKNOWN).partition(" ")[0])
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(_WRONG_COMMAND_LINE)

    def parse(self, words: Sequence[str]) -> Mapping[str, Any]:
        """What was given, by the option's name; what was not given is not there."""
        return {name: value for name, value in vars(self.namespace(words)).items() if value is not None and value is not False}

    def namespace(self, words: Sequence[str]) -> argparse.Namespace:
        """All options, with their defaults."""
        return self.parse_args(list(words))

    def _unknown(self, word: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        near = get_close_matches(word.partition("=")[0], known, n=1)
        return f"unknown {word!r}" + (f"; did you mean {near[0]}?" if near else "; --help tells all")
