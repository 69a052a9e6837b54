"""The bounds of Tokenport's own settings, which their kinds do not say."""

import math
import os
import re
from typing import Any

from serving.settings_names import SECURITY_CONTROLS, nearest
from serving.settings_values import WrongValueError

_AT_LEAST = {
    "drain_s": 0,
    "stall_s": 0.1,
    "deadline_s": 0,
    "stream_deadline_s": 0,
    "max_queue": 0,
    "max_queue_tokens": 0,
    "kv_cache_tokens": 1,
    "max_concurrency": 1,
    "max_body_bytes": 1,
    "custom_code_threads": 1,
    "session_ttl_s": 1,
    "emf_interval_s": 1,
}


def checked(name: str, value: Any) -> Any:
    """The value of Tokenport's setting `name`, in the form it is kept in.

    Raises:
        WrongValueError: it is none that the setting can have.
    """
    if value == "":
        raise WrongValueError("unset it instead of leaving it empty")
    if name == "port" and not 1 <= value <= 65535:
        raise WrongValueError("from 1 to 65535")
    if name in _AT_LEAST and not _AT_LEAST[name] <= value < math.inf:
        raise WrongValueError(f"{_AT_LEAST[name]} or more{' seconds' if name.endswith('_s') else ''}")
    if name == "adapter_roots" and not all(os.path.isabs(root) for root in value):
        raise WrongValueError("absolute paths")
    if name == "security_controls":
        return _controls(value)
    if name == "custom_code_program":
        return _program(value)
    if name == "emf_namespace" and value is not None:
        return _namespace(value)
    if name == "custom_code_dir" and value is not None:
        return _local_folder(value)
    if name == "untrusted_channels":
        return [channel for channel in value if channel]
    if name != "api_key":
        return value
    keys = [key.strip() for word in value for key in word.split(",")]
    if not all(keys):
        raise WrongValueError("a key is empty")
    return keys


def _program(name: str) -> str:
    if "/" in name:
        raise WrongValueError("a file in the code folder itself")
    return name if name.endswith(".py") else f"{name}.py"


def _namespace(name: str) -> str:
    """CloudWatch's rules: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html"""
    if not re.fullmatch(r"[\w.\-/# ][\w.\-/#: ]{0,254}", name, re.ASCII) or name.startswith("AWS/"):
        raise WrongValueError("up to 255 letters, digits and . _ - / # : and spaces, not beginning with a colon or AWS/")
    return name


def _local_folder(name: str) -> str:
    folder = name.removeprefix("file://")
    if "://" in folder:
        raise WrongValueError("a folder of this machine: nothing is downloaded at start")
    return folder


def _controls(words: list[str]) -> list[str]:
    controls = [word.upper() for word in words if word]
    for control in controls:
        if control not in SECURITY_CONTROLS:
            near = nearest(control, SECURITY_CONTROLS)
            raise WrongValueError(f"{control} is none of {', '.join(SECURITY_CONTROLS)}" + (f"; did you mean {near}?" if near else ""))
    return controls
