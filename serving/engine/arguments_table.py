"""Writes down vLLM's command line as data, so that settings can be checked in milliseconds and without vLLM.

    python -m serving.engine.arguments_table > serving/engine_arguments.json

Run it with the pinned vLLM installed and no VLLM_* variable set, whenever the pin changes. A test holds file and vLLM equal.
"""

import argparse
import inspect
import json
import re
import sys
from enum import Enum
from typing import Any

import vllm
from vllm.engine import arg_utils
from vllm.entrypoints.launchers.cli_args import LoRAParserAction, make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

_KIND_OF_PARSER = {
    "int": "int",
    "float": "float",
    "str": "str",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size_or_auto",
    "parse_dataclass": "object",
    "union_dict_and_str": "str_or_object",
}
_WRAPPERS = ("_optional_type", "_parse_type")
_NOT_SETTINGS = ("help", "model_tag")


def vllm_parser() -> FlexibleArgumentParser:
    """The parser of `vllm serve`, with its help texts, which vLLM leaves out unless the command line asks for help."""
    arg_utils.NEEDS_HELP = True
    arg_utils._compute_kwargs.cache_clear()
    return make_arg_parser(FlexibleArgumentParser())


def rows() -> list[dict[str, Any]]:
    """One row an argument, in vLLM's order; keys as in `serving.engine_arguments.Argument`, those at their default left out.

    Raises:
        ValueError: vLLM parses an argument in a way that no kind describes; a kind is to be added here and in `serving.settings_values`.
    """
    groups = vllm_parser()._action_groups
    return [_row(action, group.title or "") for group in groups for action in group._group_actions if action.dest not in _NOT_SETTINGS]


def _row(action: argparse.Action, group: str) -> dict[str, Any]:
    kind, is_optional = _kind(action)
    is_comma_list = action.dest == "device_ids"
    choices = [choice for choice in action.choices or () if choice is not None]
    row = {
        "name": action.dest,
        "flags": [flag for flag in action.option_strings if not (kind == "bool" and flag.startswith("--no-"))],
        "kind": kind,
        "many": "commas" if is_comma_list else "words" if action.nargs == "+" or isinstance(action, argparse._AppendAction) else "",
        "is_optional": is_optional,
        "choices": choices,
        "default": _default(action.default),
        "group": group,
        "help": _one_line(action.help or ""),
    }
    return {key: value for key, value in row.items() if key == "default" or value not in ("", [], False)}


def _kind(action: argparse.Action) -> tuple[str, bool]:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "bool", False
    if isinstance(action, argparse._StoreTrueAction):
        return "switch", False
    if action.nargs == "?" and action.const is True:
        return "str_or_true", False
    parse: Any = action.type or str
    is_optional = False
    while (name := parse.__name__) in _WRAPPERS:
        is_optional |= name == "_optional_type"
        parse = inspect.getclosurevars(parse).nonlocals["return_type"]
    if isinstance(action, LoRAParserAction):
        return "str_or_object", False
    if parse is json.loads:
        return ("array" if isinstance(action.default, list) else "object"), is_optional
    if name == "<lambda>":
        return ("folded" if action.choices else "int_or_str"), is_optional
    if name not in _KIND_OF_PARSER:
        raise ValueError(f"vLLM parses {action.dest} with {name}, which no kind of setting describes")
    return _KIND_OF_PARSER[name], is_optional


def _default(value: Any) -> Any:
    """The default as JSON. That of a configuration object is `{}`: what vLLM makes of an object that sets nothing."""
    if value is argparse.SUPPRESS:
        return None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else {}


def _one_line(text: str) -> str:
    """The first sentence, on one line."""
    paragraph = " ".join(text.replace("%%", "%").split("\n\n")[0].split())
    return re.split(r"\.\s+(?=[A-Z])", paragraph)[0].rstrip(".: ")


def main() -> None:
    """Print the table, an argument a line."""
    lines = ",\n".join(json.dumps(row) for row in rows())
    version = vllm.__version__.split("+")[0]
    sys.stdout.write(f'{{"vllm": "{version}", "arguments": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
