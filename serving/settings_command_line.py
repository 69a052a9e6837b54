"""Reads the words after `serve` into assignments, the way vLLM's command line is written.

`--name value`, `--name=value`, `_` for `-`, `--no-name`, short flags, `-O3`, `--name.key value` for a key of a JSON object, and the model
as a bare word. No abbreviations: a prefix of a name is unknown.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from serving.engine_arguments import Argument, engine_arguments, flag_of, name_of
from serving.errors import SettingsError
from serving.settings_names import OWN, nearest, settable
from serving.settings_sources import Assignment, named, refuse_unknown
from serving.settings_values import WrongValueError, convert

_LEVEL = re.compile(r"-O=?(\d)")
_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CONFIG = Argument("config", "str")


def from_command_line(argv: Sequence[str]) -> tuple[list[Assignment], str | None]:
    """The assignments in `argv`, in order, and what `--config` names.

    Raises:
        SettingsError: a flag is unknown, lacks its value, or is there in two ways.
    """
    found = list(_keys_joined(_assignments(list(argv))))
    configs = [assignment.raw for assignment in found if assignment.argument is _CONFIG]
    if len(configs) > 1:
        raise SettingsError("--config is given twice; name one file")
    return [assignment for assignment in found if assignment.argument is not _CONFIG], next(iter(configs), None)


def _assignments(words: list[str]) -> Iterator[tuple[Assignment, tuple[str, ...]]]:
    """Each assignment, with the keys after the name where there are any."""
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            yield Assignment(OWN["model"], word, "the model", "command line"), ()
            continue
        if level := _LEVEL.fullmatch(word):
            word = f"--optimization-level={level[1]}"
        flag, equals, attached = word.partition("=")
        base, *keys = ("--optimization-level" if flag == "-O" else flag).split(".")
        name = _name(base)
        if name == _CONFIG.name:
            argument, negative = _CONFIG, False
        else:
            # A negative flag is one that `named` makes False of.
            probe = named(name, "true", flag, flag, functools.partial(_suggest, name))
            argument, negative = probe.argument, probe.raw is False
        if negative and equals:
            raise SettingsError(f"{flag} takes no value; write {flag_of(argument.name)}={attached}")
        raw = False if negative else attached if equals else _value(argument, keys, flag, words)
        if equals and argument.many == "words":
            raw = _words_or_array([attached])
        yield Assignment(argument, raw, flag, flag), tuple(keys)


def _name(flag: str) -> str:
    if flag.startswith("--"):
        return name_of(flag)
    names = {short: argument.name for argument in engine_arguments().values() for short in argument.flags if not short.startswith("--")}
    if flag not in names:
        refuse_unknown(flag, nearest(flag, names))
    return names[flag]


def _value(argument: Argument, keys: list[str], flag: str, words: list[str]) -> Any:
    """Take from `words` the value that follows `flag`."""
    if argument.kind in ("bool", "switch") and not keys:
        return words.pop(0) if words and words[0].lower() in ("true", "false") else True
    if argument.many == "words":
        taken: list[str] = []
        while words and not _is_flag(words[0]):
            taken.append(words.pop(0))
        if taken:
            return _words_or_array(taken)
    elif words and not _is_flag(words[0]):
        return words.pop(0)
    elif argument.kind == "str_or_true":
        return True
    raise SettingsError(f"{flag} needs a value; one that begins with a dash is written {flag}=VALUE")


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _NUMBER.fullmatch(word)


def _words_or_array(words: list[str]) -> list[str] | str:
    return words[0] if len(words) == 1 and words[0].startswith("[") else words


def _suggest(name: str) -> str | None:
    negatives = (f"no_{switch}" for switch, argument in settable().items() if argument.kind == "bool")
    near = nearest(name, [*settable(), *negatives, _CONFIG.name])
    return near and flag_of(near)


def _keys_joined(found: Iterable[tuple[Assignment, tuple[str, ...]]]) -> Iterator[Assignment]:
    """Make one object of all the `--name.key value`."""
    objects: dict[str, Assignment] = {}
    wholes: dict[str, str] = {}
    for assignment, keys in found:
        name = assignment.argument.name
        if not keys:
            wholes[name] = assignment.spelled
            yield assignment
            continue
        if assignment.argument.kind not in ("object", "str_or_object"):
            raise SettingsError(f"{assignment.spelled}: {name} is not a JSON object and has no keys")
        whole = flag_of(name)
        _put(objects.setdefault(name, Assignment(assignment.argument, {}, f"{whole}.*", whole)).raw, keys, assignment)
    if both := sorted(objects.keys() & wholes.keys()):
        raise SettingsError(f"{wholes[both[0]]} and {objects[both[0]].spelled} are both given; write the object in one way")
    yield from objects.values()


def _put(target: dict[str, Any], keys: tuple[str, ...], assignment: Assignment) -> None:
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise SettingsError(f"{assignment.spelled}: {key} has a value already")
    key, appends = keys[-1].removesuffix("+"), keys[-1].endswith("+")
    previous = target.get(key)
    if previous is not None and not (appends and isinstance(previous, list)):
        raise SettingsError(f"{assignment.spelled}: {key} has a value already")
    target[key] = [*(previous or []), *assignment.raw.split(",")] if appends else _literal(assignment.raw)


def _literal(text: str) -> Any:
    """JSON, a number such as 80m, or the text itself, as vLLM reads the value of a key."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return convert(Argument("", "size"), text)
    except WrongValueError:
        return text
