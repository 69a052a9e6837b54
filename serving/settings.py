"""One frozen object says how this process runs, and where each of its values came from.

Later wins: defaults, file, HF_MODEL_ID and its like, OPTION_*, SM_VLLM_*, TOKENPORT_*, command line. What is unknown, malformed or
contradictory stops the start; nothing is dropped. vLLM's own arguments are settings by their own names; vLLM itself is not imported.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from serving.engine_arguments import engine_arguments, vllm_argv
from serving.errors import SettingsError
from serving.redaction import redact, show
from serving.settings_bounds import checked
from serving.settings_command_line import from_command_line
from serving.settings_contradictions import refuse_contradictions
from serving.settings_help import default_text
from serving.settings_names import OWN, REFUSED, nearest
from serving.settings_sources import CONFIG, DEFAULT, LMI_PREFIX, OWN_PREFIX, Assignment, from_file, from_plain, from_prefixed
from serving.settings_values import WrongValueError, convert, expected

__all__ = ["DEFAULT", "Settings", "describe", "load_settings", "vllm_argv"]

_PREFIXES = (LMI_PREFIX, "SM_VLLM_", OWN_PREFIX)
_MAX_SHOWN = 100
_PLATFORM_PREFIX = "SAGEMAKER_"
"""SageMaker sets variables with this prefix in every container it starts."""
_SAGEMAKER_DEADLINE_S = 55.0
"""InvokeEndpoint gives up after 60 s: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html"""
_IS_BATCH = "SAGEMAKER_BATCH"
"""`true` in a batch transform, which waits for up to an hour: no deadline there."""


@dataclass(frozen=True)
class Settings:
    """How this process runs.

    `model` is a directory or a Hugging Face id, None if none was named. `log_level` is debug, info, warning or error. Prompts and
    completions may be logged only if `log_requests`. `api_key`: keys of which a request must carry one; empty for no check. `drain_s`:
    seconds that running requests have after SIGTERM. `stall_s`: seconds without a step of the engine that make it stalled. `deadline_s`,
    `stream_deadline_s`: seconds an answer may take, 0 for no limit. `max_queue` requests and `max_queue_tokens` tokens may wait beyond what
    the engine holds at once; None for as many tokens again. `kv_cache_tokens`, `max_concurrency` (sequences of full length): what the KV
    cache of each replica holds; None for what memory is left. `session_ttl_s`: seconds that a session lasts. `cascade`: see
    `cascade/config.py`. `emf_*`: see `api/emf.py`. `on_sagemaker`: the platform runs this process.
    `custom_code*`: see `api/custom_code.py`. `secure_mode`, `security_controls` (upper case), `untrusted_channels`: see `secure_mode.py`.
    `verify_checksums`: see `engine/checksums.py`. `trust_shipped_cache`: see `engine/shipped_cache.py`.
    `adapter_roots`: absolute paths of the directories that LoRA adapters may be in.
    `engine` holds vLLM's own arguments by name, only those that were set: bool, int, float, str, list, dict, or None where vLLM takes it.
    `sources` says of every setting here, and of every one in `engine`, where its value came from: "default", "TOKENPORT_PORT", "--port".
    """

    model: str | None
    host: str
    port: int
    cache_dir: Path
    log_level: str
    log_requests: bool
    embedded_model: bool
    api_key: tuple[str, ...]
    adapter_roots: tuple[str, ...]
    drain_s: float
    stall_s: float
    deadline_s: float
    stream_deadline_s: float
    max_queue: int
    max_queue_tokens: int | None
    kv_cache_tokens: int | None
    max_concurrency: int | None
    max_body_bytes: int
    session_ttl_s: float
    cascade: str | None
    emf_namespace: str | None
    emf_interval_s: float
    emf_endpoint_name: str | None
    verify_checksums: bool
    trust_shipped_cache: bool
    custom_code: bool
    custom_code_program: str
    custom_code_dir: str | None
    custom_code_threads: int
    secure_mode: bool
    security_controls: tuple[str, ...]
    untrusted_channels: tuple[str, ...]
    on_sagemaker: bool
    engine: Mapping[str, Any]
    sources: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value}' for name, value, _ in describe(self))})"


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings that the words after `serve`, the environment and the file named by either make.

    Raises:
        SettingsError: the first of them that is unknown, malformed or contradicts another.
    """
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    cache = environ.get("XDG_CACHE_HOME", "")
    values: dict[str, Any] = {name: own.default for name, own in OWN.items()}
    values["cache_dir"] = str((Path(cache) if os.path.isabs(cache) else home / ".cache") / "tokenport")
    sources = dict.fromkeys(values, DEFAULT)
    for level in _levels(argv, environ, home):
        values |= level.values
        sources |= level.sources
    refuse_contradictions(values, sources)
    own = {name: values.pop(name) for name in OWN}
    own["cache_dir"] = home / own["cache_dir"][2:] if own["cache_dir"].startswith("~/") else Path(own["cache_dir"])
    for name in ("api_key", "adapter_roots", "security_controls", "untrusted_channels"):
        own[name] = tuple(own[name])
    own["on_sagemaker"] = any(name.startswith(_PLATFORM_PREFIX) for name in environ)
    if own["deadline_s"] is None:
        own["deadline_s"] = 0.0 if not own["on_sagemaker"] or environ.get(_IS_BATCH) == "true" else _SAGEMAKER_DEADLINE_S
    return Settings(**own, engine=MappingProxyType(values), sources=MappingProxyType(sources))


@dataclass(frozen=True)
class _Level:
    """What the sources of one rank say together."""

    values: dict[str, Any]
    sources: dict[str, str]


def _levels(argv: Sequence[str], environ: Mapping[str, str], home: Path) -> Iterator[_Level]:
    words, config = from_command_line(argv)
    option = CONFIG if config is None else "--config"
    config = environ.get(CONFIG) if config is None else config
    if config is not None:
        yield _level(from_file(config, option, home))
    yield _level(from_plain(environ))
    for prefix in _PREFIXES:
        yield _level(from_prefixed(environ, prefix))
    yield _level(words)


def _level(assignments: Iterable[Assignment]) -> _Level:
    """Raises SettingsError if two of them, of which none outranks the other, say different things."""
    values: dict[str, Any] = {}
    said: dict[str, Assignment] = {}
    for assignment in assignments:
        name, value = assignment.argument.name, _typed(assignment)
        if name == "api_key" and name in values:
            value = values[name] + value
        elif name in values and values[name] != value:
            first, second = said[name].spelled, assignment.spelled
            both = f"{first} is given twice" if first == second else f"{first} and {second} disagree"
            raise SettingsError(f"{both}: {_shown(name, values[name])} and {_shown(name, value)}; keep one")
        values[name], said[name] = value, assignment
    return _Level(values, {name: assignment.source for name, assignment in said.items()})


def _typed(assignment: Assignment) -> Any:
    argument, raw = assignment.argument, assignment.raw
    try:
        value = convert(argument, raw)
        return checked(argument.name, value) if argument.name in OWN else value
    except WrongValueError as error:
        near = nearest(str(raw).lower(), map(str, argument.choices))
        hints = [str(error), f"did you mean {near}?" if near else ""]
        text = "; ".join([f"expected {expected(argument)}, got {_shown(argument.name, raw)}", *filter(None, hints)])
        raise SettingsError(f"{assignment.spelled}: {text}") from error


def _shown(name: str, raw: Any) -> str:
    text = repr(redact(name, raw))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def describe(settings: Settings, *, all: bool = False) -> list[tuple[str, str, str]]:
    """A row (name, value, source) for each of Tokenport's settings and each of vLLM's that was set, secrets hidden.

    `all`: also for those of vLLM's at their default; an empty value there is vLLM's to decide.
    """
    rows = [(name, show(name, value), settings.sources[name]) for name, value in _own_values(settings)]
    for name, argument in engine_arguments().items():
        if name in settings.engine:
            rows.append((name, show(name, settings.engine[name]), settings.sources[name]))
        elif all and name not in REFUSED and name not in OWN:
            rows.append((name, default_text(argument), DEFAULT))
    return rows


def _own_values(settings: Settings) -> Iterator[tuple[str, Any]]:
    for name in OWN:
        value = getattr(settings, name)
        yield name, str(value) if isinstance(value, Path) else "" if value in (None, ()) else value
