"""Reads the file and the environment into assignments: a setting's name, what was written, and where.

Names are made sure of here, values are not looked at, but for LMI's, whose words differ from vLLM's.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from serving.engine_arguments import Argument
from serving.errors import SettingsError
from serving.redaction import show
from serving.settings_names import EMPTY_IS_UNSET, LMI_MODES, LMI_NAMES, OWN, PLAIN, REFUSED, from_lmi, nearest, settable, vllm_names
from serving.settings_values import TRUE, WrongValueError

OWN_PREFIX = "TOKENPORT_"
LMI_PREFIX = "OPTION_"
CONFIG = f"{OWN_PREFIX}CONFIG"
DEFAULT = "default"
"""The source of a setting that nobody set."""
_NEGATIVE = "no_"


@dataclass(frozen=True)
class Assignment:
    """`argument` is to be what `raw` says. `spelled` is how the person named it, `source` the place, for `Settings.sources`."""

    argument: Argument
    raw: Any
    spelled: str
    source: str


def from_plain(environ: Mapping[str, str]) -> Iterator[Assignment]:
    """The few variables that are settings without carrying a prefix."""
    for variable, name in PLAIN.items():
        if environ.get(variable) or (variable in environ and variable not in EMPTY_IS_UNSET):
            yield Assignment(settable()[name], environ[variable], variable, variable)


def from_prefixed(environ: Mapping[str, str], prefix: str) -> Iterator[Assignment]:
    """Every variable that begins with `prefix`.

    Raises:
        SettingsError: one is unknown.
    """
    for variable in sorted(environ):
        name = variable.removeprefix(prefix).lower()
        if variable.startswith(prefix) and variable != CONFIG:
            if prefix == LMI_PREFIX and name in LMI_MODES:
                _check_mode(variable, LMI_MODES[name], environ[variable])
            else:
                yield _from_variable(variable, name, prefix, environ[variable])


def _from_variable(variable: str, name: str, prefix: str, value: str) -> Assignment:
    foreign = prefix != OWN_PREFIX
    if prefix == LMI_PREFIX:
        try:
            name, value = from_lmi(name, value)
        except WrongValueError as error:
            raise SettingsError(f"{variable}: expected an integer, got {value!r}; {error}") from None
    if foreign and name in OWN and name not in vllm_names():
        refuse_unknown(variable, f"{OWN_PREFIX}{name.upper()}")
    known = set(vllm_names() - REFUSED.keys() if foreign else settable())
    if prefix == LMI_PREFIX:
        known |= LMI_NAMES.keys() | LMI_MODES.keys()
    return named(name, value, variable, variable, lambda: (near := nearest(name, sorted(known))) and prefix + near.upper())


def _check_mode(variable: str, modes: tuple[str, ...], value: str) -> None:
    if value.strip().lower() not in modes:
        raise SettingsError(f"{variable}: expected {' or '.join(modes)}, which is how Tokenport runs, got {value!r}; unset it")


def from_file(config: str, option: str, home: Path) -> Iterator[Assignment]:
    """The settings of a YAML or JSON file, or of such a text itself. `option` is what `config` was given by.

    Raises:
        SettingsError: it cannot be read, is no mapping, or a key is unknown or there twice.
    """
    is_inline = config.lstrip().startswith("{") or "\n" in config or ": " in config
    path = home / config[2:] if config.startswith("~/") else Path(config)
    where, place = (option, option) if is_inline else (f"the file {path}", f"file {path}")
    if not config.strip():
        raise SettingsError(f"{option} is empty: name a file, or unset it")
    try:
        text = config if is_inline else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{option}={config}: {getattr(error, 'strerror', None) or error}") from error
    for key, value in _mapping(text, where).items():
        yield _from_key(key, value, where, place)


def _from_key(key: str, value: Any, where: str, place: str) -> Assignment:
    name = key.replace("-", "_")
    return named(name, value, f"key {key} in {where}", place, lambda: nearest(name, settable()))


def _mapping(text: str, where: str) -> dict[str, Any]:
    content = parse_document(text, where)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{where}: expected settings as `name: value`, got {type(content).__name__}")
    return content


def parse_document(text: str, where: str) -> Any:
    """What `text` holds: JSON if it is, else YAML.

    Raises:
        SettingsError: it is neither, or has a key twice; `where` begins the sentence.
    """
    try:
        return json.loads(text, object_pairs_hook=functools.partial(_without_repeats, where=where))
    except json.JSONDecodeError:
        pass
    import yaml  # only those with a file of YAML pay for it

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            mapping = super().construct_mapping(node, deep)
            _without_repeats([(self.construct_object(key, deep=True), None) for key, _ in node.value], where=where)
            return mapping

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError(f"{where}{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: {error}") from error


def _without_repeats(pairs: list[tuple[Any, Any]], *, where: str) -> dict[Any, Any]:
    """The pairs as a dictionary. Of a key that is there twice, JSON and YAML would drop one in silence."""
    keys = [key for key, _ in pairs]
    if twice := [key for index, key in enumerate(keys) if key in keys[:index]]:
        raise SettingsError(f"{where}: the key {twice[0]} is there twice")
    return dict(pairs)


def named(name: str, raw: Any, spelled: str, source: str, suggest: Callable[[], str | None]) -> Assignment:
    """The assignment to the setting `name`; `no_<name>` says false of a switch. `suggest` finds what may have been meant if there is none.

    Raises:
        SettingsError: there is no such setting, or Tokenport could not honour it.
    """
    if name in settable():
        return Assignment(settable()[name], raw, spelled, source)
    positive = settable().get(name.removeprefix(_NEGATIVE))
    if positive and positive.kind == "bool":
        if str(raw).strip().lower() not in TRUE:
            raise SettingsError(f"{spelled}: expected true, got {show(name, raw)!r}; to switch it on, set {positive.name}")
        return Assignment(positive, False, spelled, source)
    if name in REFUSED:
        raise SettingsError(f"{spelled}: vLLM's {name} cannot be set: {REFUSED[name]}")
    refuse_unknown(spelled, suggest())


def refuse_unknown(spelled: str, near: str | None) -> NoReturn:
    """Raise SettingsError: nothing is called so, perhaps `near` was meant."""
    raise SettingsError(f"{spelled} is not a setting" + (f"; did you mean {near}?" if near else ""))
