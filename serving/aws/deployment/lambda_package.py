"""The function's zip: the same bytes for the same sources, so that its hash tells whether the function has this code."""

import base64
import hashlib
import io
import zipfile
from pathlib import Path

import serving

HANDLER = "run.sh"
_START = """#!/bin/sh
# boto3 is where Lambda's own start would have looked for it.
PYTHONPATH="$LAMBDA_TASK_ROOT:$LAMBDA_RUNTIME_DIR" exec python3 -m serving.aws.lambda_function
"""
_ROOT = Path(serving.__file__).parent
_FILES = ("__init__.py", "errors.py", "aws/__init__.py", "aws/bedrock_answer.py")
_FOLDER = "aws/lambda_function"
_EXECUTABLE, _READABLE = 0o755, 0o644


def build_package() -> bytes:
    """Python's standard library and boto3, which the runtime has, are all that it needs besides."""
    sources = [_ROOT / name for name in _FILES] + sorted((_ROOT / _FOLDER).glob("*.py"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, HANDLER, _START.encode(), _EXECUTABLE)
        for path in sources:
            _add(archive, f"serving/{path.relative_to(_ROOT).as_posix()}", path.read_bytes(), _READABLE)
    return buffer.getvalue()


def code_sha256(package: bytes) -> str:
    """As Lambda writes it."""
    return base64.b64encode(hashlib.sha256(package).digest()).decode()


def _add(archive: zipfile.ZipFile, name: str, contents: bytes, mode: int) -> None:
    # ZipInfo's own date is constant.
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, contents)
