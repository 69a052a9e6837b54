"""vLLM's command line as data: every argument it takes, read from the table written from the pinned vLLM, and the way back to words.

No vLLM in sight: the table is `engine_arguments.json`, written by `serving.engine.arguments_table`.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("engine_arguments.json")


@dataclass(frozen=True)
class Argument:
    """A setting's name and type, be it vLLM's argument or Tokenport's own.

    `kind`: bool, switch (a flag without a negative), int, int_or_auto, size (an int that may be written 8k or 8K), size_or_auto, float,
    str, folded (a choice in any case, `-` as `_`), int_or_str, object and array (JSON), str_or_object, str_or_true (a flag with an
    optional value).
    `many`: "" for one value, "words" for several on the command line, "commas" for several in one word.
    `choices` empty: any value of the kind. `is_optional`: None is a value too. `default`: a JSON value, None where vLLM decides.
    """

    name: str
    kind: str
    flags: tuple[str, ...] = ()
    many: str = ""
    is_optional: bool = False
    choices: tuple[Any, ...] = ()
    default: Any = None
    group: str = ""
    help: str = ""

    @property
    def names(self) -> Iterator[str]:
        """Its name and what else its long flags call it."""
        yield self.name
        for flag in self.flags:
            if flag.startswith("--") and (name := name_of(flag)) != self.name:
                yield name


def name_of(flag: str) -> str:
    """`--max-model-len` -> `max_model_len`."""
    return flag.removeprefix("--").replace("-", "_")


def flag_of(name: str) -> str:
    """`max_model_len` -> `--max-model-len`."""
    return "--" + name.replace("_", "-")


@functools.cache
def engine_arguments() -> Mapping[str, Argument]:
    """Every argument of vLLM by its name, in vLLM's order."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["arguments"]
    return {row["name"]: Argument(**row | {key: tuple(row.get(key, ())) for key in ("flags", "choices")}) for row in rows}


def vllm_argv(engine: Mapping[str, Any]) -> list[str]:
    """`engine` as words for vLLM's own parser: `{"enforce_eager": False, "seed": 1}` -> `--no-enforce-eager --seed 1`.

    Raises:
        KeyError: a name is not vLLM's.
    """
    return [word for name, value in engine.items() for word in _words(engine_arguments()[name], value)]


def _words(argument: Argument, value: Any) -> list[str]:
    flag = argument.flags[0]
    if argument.kind == "bool":
        return [flag if value else flag_of(f"no_{argument.name}")]
    if value is True:
        return [flag]
    if value is False:
        return []
    if argument.many == "commas":
        return [flag, ",".join(map(str, value))]
    words = [_word(item) for item in value] if argument.many else [_word(value)]
    # A value that begins like a flag must hang on the flag's word.
    return [f"{flag}={words[0]}"] if len(words) == 1 and words[0].startswith("-") else [flag, *words]


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
