"""Which model is meant: a local folder or archive, one on S3, a name on the Hugging Face hub, or the embedded model.

Rules, first match wins: an S3 location; a name that exists on the disk; the embedded model's name; a path that does not exist is an
error; a hub name. Without a name: the mounted folder, then the embedded model if it is allowed. A folder that holds nothing but an archive
means the archive. Looks at names and folders only.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.engine import s3_client
from serving.engine.archive import SUFFIXES, is_archive, model_name
from serving.engine.embedded_model import NAME as EMBEDDED
from serving.errors import ModelUnavailable
from serving.redaction import redact

# Where SageMaker unpacks model artifacts: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
MOUNTED = Path("/opt/ml/model")
_HUB_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?")
_NUM_SHOWN = 5


@dataclass(frozen=True)
class ModelSource:
    """One model and where it is. `location` is an absolute folder or file, an S3 location, a hub name, or empty for the embedded model."""

    kind: Literal["folder", "archive", "s3", "hub", "embedded"]
    location: str
    served_name: str


def find_model(model: str | None, *, embedded_allowed: bool, mounted: Path = MOUNTED) -> ModelSource:
    """The model that `model` names, or the one to take when it is `None`. A hub name is not looked up.

    `embedded_allowed` decides only about taking the embedded model unasked. Raises `ModelUnavailable`.
    """
    return _unnamed(embedded_allowed, mounted) if model is None else _named(model)


def _named(model: str) -> ModelSource:
    if model.startswith("s3://"):
        location = s3_client.parse(model)
        return ModelSource("s3", str(location), model_name(location.name))
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        return _folder(Path(os.path.abspath(path)))
    if os.path.isfile(path) and is_archive(path):
        return _archive(Path(os.path.abspath(path)))
    if os.path.exists(path) or model.endswith(".gguf"):
        wanted = f"a folder with a config.json and safetensors, such a folder as {' or '.join(SUFFIXES)}, or a hub id"
        raise ModelUnavailable(f"{model} is a file: TOKENPORT_MODEL must name {wanted}")
    if model == EMBEDDED:
        return ModelSource("embedded", "", EMBEDDED)
    if "://" in model:
        raise ModelUnavailable(
            f"{redact('', model)} is a URL, of which only s3:// can be read: download it and set TOKENPORT_MODEL to the folder"
        )
    if model.startswith(("/", ".", "~")) or "\\" in model or model.count("/") > 1:
        raise ModelUnavailable(f"no such folder: {model}")
    if not _HUB_NAME.fullmatch(model):
        raise ModelUnavailable(f"{model!r} is neither a folder nor a hub id: a hub id is org/name, of letters, digits, '.', '_' and '-'")
    return ModelSource("hub", model, model)


def _unnamed(embedded_allowed: bool, mounted: Path) -> ModelSource:
    # A mounted folder with anything in it was meant: an incomplete model must not turn into another model unnoticed.
    if _names_in(mounted):
        return _folder(mounted)
    if embedded_allowed:
        return ModelSource("embedded", "", EMBEDDED)
    raise ModelUnavailable(f"no model: set TOKENPORT_MODEL to a local folder or a hub id, or mount one at {mounted}")


def _folder(path: Path) -> ModelSource:
    if (path / "config.json").is_file():
        return ModelSource("folder", str(path), path.name)
    names = _names_in(path)
    if len(names) == 1 and is_archive(names[0]) and (path / names[0]).is_file():
        return _archive(path / names[0])
    found = ", ".join(names[:_NUM_SHOWN]) + (f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else "")
    raise ModelUnavailable(f"{path} holds no model: no config.json in it (found: {found or 'nothing'})")


def _archive(path: Path) -> ModelSource:
    return ModelSource("archive", str(path), model_name(path.name))


def _names_in(path: Path) -> list[str]:
    """The names in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelUnavailable(f"cannot read the model folder {path}: {error.strerror}") from error
