"""SageMaker's secure mode: what may not come with a model that is not trusted. Settings and folders in, the first violation out.

Options and the model's own code are checked always, the content of files in the untrusted channels; what would be downloaded passes through
no channel and cannot be checked, so it is refused. The controls are those of LMI's plugin:
https://github.com/deepjavalibrary/djl-serving/tree/master/plugins/secure-mode
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from serving.errors import StartError
from serving.settings import Settings

SCRIPTS, REMOTE_CODE, PICKLES, CHAT_TEMPLATES, REQUIREMENTS = (
    "DISALLOW_CUSTOM_INFERENCE_SCRIPTS",
    "DISALLOW_TRUST_REMOTE_CODE",
    "DISALLOW_PICKLE_FILES",
    "DISALLOW_CHAT_TEMPLATE",
    "DISALLOW_REQUIREMENTS_TXT",
)
_SCRIPT_NAMES = ("inference.py", "model.py")
_CODE = "code"
_REQUIREMENTS = "requirements.txt"
_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TEMPLATE_ENDINGS = (".jinja", ".jinja2")
_TEMPLATE_CONFIGS = frozenset(
    {"tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "special_tokens_map.json", "chat_template.json"}
)
_CODE_OPTIONS = frozenset({"logits_processors", "model_class_overrides", "io_processor_plugin"})
_CODE_ENDINGS = ("_cls", "_module_path", "_parser_plugin")
_TEMPLATE = "chat_template"
_MODEL_OPTIONS = frozenset({"tokenizer", "hf_config_path", "spec_model"})


def check_start(settings: Settings, location: str, model_folder: Path) -> None:
    """Do nothing unless secure mode is on. `location` is the model's folder or hub name, empty for the embedded model; `model_folder` the
    folder whose code/ would be run.

    Raises:
        StartError: the first violation, with its control and the file or option.
    """
    if settings.secure_mode and (violation := next(_violations(settings, location, model_folder), None)):
        raise StartError(violation)


def adapter_violation(settings: Settings, folder: Path) -> str | None:
    """What in an adapter's folder is forbidden, as one line; None if it may be loaded. An adapter's chat template is never read."""
    if not settings.secure_mode:
        return None
    controls = frozenset(settings.security_controls) - {CHAT_TEMPLATES}
    try:
        return next(itertools.chain(_code_in(folder, settings, controls), _content_in(folder, controls)), None)
    except StartError as error:
        return str(error)


def _violations(settings: Settings, location: str, model_folder: Path) -> Iterator[str]:
    controls = frozenset(settings.security_controls)
    yield from _options(settings, controls)
    yield from _downloads(settings, location, controls)
    folders = [model_folder, *map(Path, settings.untrusted_channels)]
    for folder in dict.fromkeys(folders):
        yield from _code_in(folder, settings, controls)
    for channel in settings.untrusted_channels:
        if not Path(channel).is_dir():
            yield f"SAGEMAKER_UNTRUSTED_CHANNELS: {channel} is not a folder"
        yield from _content_in(Path(channel), controls)


def _options(settings: Settings, controls: frozenset[str]) -> Iterator[str]:
    for name, value in settings.engine.items():
        source = settings.sources[name]
        for path, key, item in _nested(name, value):
            if REMOTE_CODE in controls and key == "trust_remote_code" and item not in (None, False, "false"):
                yield _text(REMOTE_CODE, f"{source} sets {path}")
            if SCRIPTS in controls and _names_code(key, item):
                yield _text(SCRIPTS, f"{source} sets {path}, which names Python code")
            if CHAT_TEMPLATES in controls and (key == "trust_request_chat_template" and item):
                yield _text(CHAT_TEMPLATES, f"{source} sets {path}, which lets a request bring its template")
            if CHAT_TEMPLATES in controls and key == _TEMPLATE and item is not None and not _is_trusted_file(str(item), settings):
                yield _text(CHAT_TEMPLATES, f"{source} sets {path} to something else than a file outside of the untrusted channels")
    if PICKLES in controls and settings.trust_shipped_cache:
        yield _text(PICKLES, f"{settings.sources['trust_shipped_cache']} trusts the compiled code that comes with a model")
    if SCRIPTS in controls and settings.custom_code_dir is not None:
        for script in _python_files(Path(settings.custom_code_dir)):
            yield _text(SCRIPTS, f"{settings.sources['custom_code_dir']} names a folder with {script}")


def _names_code(key: str, item: Any) -> bool:
    if key == "distributed_executor_backend":
        return "." in str(item)
    if key == "method":
        return item == "custom_class"
    return item not in (None, "auto", [], {}) and (key in _CODE_OPTIONS or key.endswith(_CODE_ENDINGS))


def _nested(path: str, value: Any, key: str | None = None) -> Iterator[tuple[str, str, Any]]:
    """`value`, and if it is an object whatever is in it at any depth: dotted path, last key, value."""
    yield path, key or path, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _nested(f"{path}.{name}", item, str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _nested(f"{path}[{index}]", item, "")


def _is_trusted_file(name: str, settings: Settings) -> bool:
    path = Path(os.path.abspath(name))
    channels = [Path(os.path.abspath(channel)) for channel in settings.untrusted_channels]
    return path.is_file() and not any(
        inside.is_relative_to(outer) for channel in channels for outer in (channel, channel.resolve()) for inside in (path, path.resolve())
    )


def _downloads(settings: Settings, location: str, controls: frozenset[str]) -> Iterator[str]:
    control = next((control for control in (PICKLES, CHAT_TEMPLATES) if control in controls), None)
    if control is None:
        return
    if location and not os.path.isdir(location):
        yield _text(control, f"the model {location} would be downloaded or unpacked, which no channel checks: name a folder")
    for name, value in settings.engine.items():
        for path, key, item in _nested(name, value):
            names_model = key in _MODEL_OPTIONS or path == "speculative_config.model"
            if names_model and isinstance(item, str) and not os.path.exists(item):
                yield _text(control, f"{settings.sources[name]}: {path} {item} would be downloaded, which no channel checks: name a folder")


def _code_in(folder: Path, settings: Settings, controls: frozenset[str]) -> Iterator[str]:
    """What would be run or installed for what is in `folder`: its own scripts, and all of its code folder."""
    if SCRIPTS in controls:
        for name in dict.fromkeys((settings.custom_code_program, *_SCRIPT_NAMES)):
            if (folder / name).is_file():
                yield _text(SCRIPTS, str(folder / name))
        for script in _python_files(folder / _CODE):
            yield _text(SCRIPTS, str(script))
    if REQUIREMENTS in controls:
        for place in (folder / _REQUIREMENTS, folder / _CODE / _REQUIREMENTS):
            if place.is_file():
                yield _text(REQUIREMENTS, str(place))


def _python_files(folder: Path) -> Iterable[Path]:
    return (path for path in _walk(folder) if path.suffix == ".py") if folder.is_dir() else ()


def _content_in(folder: Path, controls: frozenset[str]) -> Iterator[str]:
    for path in _walk(folder):
        name = path.name.lower()
        if PICKLES in controls and name.endswith(_PICKLE_ENDINGS):
            yield _text(PICKLES, f"{path}; only safetensors may come from there")
        if CHAT_TEMPLATES in controls and (name.endswith(_TEMPLATE_ENDINGS) or (name in _TEMPLATE_CONFIGS and _has_template(path))):
            yield _text(CHAT_TEMPLATES, str(path))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, by name. Links to folders are followed, as a reader of the model would, each folder once."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_check):
        folders[:] = sorted(name for name in folders if os.path.realpath(os.path.join(parent, name)) not in seen)
        seen.add(os.path.realpath(parent))
        for name in sorted(files):
            yield Path(parent, name)


def _has_template(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        _cannot_check(error)
    except (ValueError, RecursionError) as error:
        raise StartError(f"secure mode cannot check {path}: it is not JSON") from error
    return isinstance(content, dict) and content.get(_TEMPLATE) is not None


def _cannot_check(error: OSError) -> NoReturn:
    raise StartError(f"secure mode cannot check {error.filename}: {error.strerror}") from error


def _text(control: str, what: str) -> str:
    return f"secure mode, {control}: {what}"
