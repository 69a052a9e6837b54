"""What of a setting may be shown: secrets are `***` in tables, errors and logs."""

import json
import re
from typing import Any

HIDDEN = "***"
_SECRET_NAME = re.compile(r"(?i)(^|[_-])(password|passwd|secret|token|credentials?|(api|access|secret|private|account)[_-]?key)$")
_USERINFO = re.compile(r"(?<=://)[^/\s@\"']+(?=@)")
_STRING_MEMBER = re.compile(r'(["\']?)([\w-]+)\1(\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|\'[^\']*\'?|[^\s,}]+)')


def redact(name: str, value: Any) -> Any:
    """`value` of the setting `name` with every secret in it hidden, at any depth: by the name it has, or as the user part of a URL."""
    if value is not None and not isinstance(value, bool) and _SECRET_NAME.search(name):
        return HIDDEN if value else value
    if isinstance(value, dict):
        return {key: redact(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact("", item) for item in value]
    return _redact_text(value) if isinstance(value, str) else value


def show(name: str, value: Any) -> str:
    """`value` of the setting `name` as one would write it in a variable, without its secrets."""
    value = redact(name, value)
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str)


def _redact_text(text: str) -> str:
    """Also text that should have been JSON, and is not."""
    text = _USERINFO.sub(HIDDEN, text)
    return _STRING_MEMBER.sub(lambda match: match[0] if not _SECRET_NAME.search(match[2]) else match[0].replace(match[4], HIDDEN), text)
