"""Brings the model to this machine: the embedded one is made, one on S3 downloaded, an archive unpacked; a folder or a hub name stays.

With `load_format=runai_streamer` the weights of a model on S3 stay there, for vLLM to stream.
"""

from dataclasses import dataclass
from pathlib import Path

from serving.engine.archive import is_archive, unpack
from serving.engine.embedded_model import ensure_model
from serving.engine.interface import Report
from serving.engine.model_source import ModelSource
from serving.engine.s3_client import parse
from serving.engine.s3_model import fetch_archive, fetch_folder
from serving.errors import StartError
from serving.settings import Settings

STREAMING = "runai_streamer"


@dataclass(frozen=True)
class LocalModel:
    """`location`: a folder or a hub name, as vLLM takes it. `weights`: where the weights are instead, empty if they are there. `is_whole`:
    nothing that vLLM does not need was left out."""

    location: str
    weights: str = ""
    is_whole: bool = True


def fetch(source: ModelSource, settings: Settings, report: Report) -> LocalModel:
    """Blocks until the model is here.

    Raises:
        StartError: it cannot be had, or brings code that would not be run.
    """
    if source.kind == "embedded":
        return LocalModel(str(ensure_model(settings.cache_dir, report)))
    if source.kind == "s3":
        return _from_s3(source.location, settings, report)
    if source.kind == "archive":
        return _unpacked(Path(source.location), source.location, settings, report)
    return LocalModel(source.location)


def _from_s3(uri: str, settings: Settings, report: Report) -> LocalModel:
    location, cache_dir = parse(uri), settings.cache_dir
    if is_archive(uri):
        return _unpacked(fetch_archive(location, cache_dir, report), uri, settings, report)
    load_format = str(settings.engine.get("load_format", "auto"))
    is_streamed = load_format == STREAMING
    with_code = bool(settings.engine.get("trust_remote_code"))
    folder = fetch_folder(location, cache_dir, report, load_format=load_format, with_code=with_code, with_weights=not is_streamed)
    return LocalModel(str(folder), uri if is_streamed else "", is_whole=False)


def _unpacked(archive: Path, told: str, settings: Settings, report: Report) -> LocalModel:
    folder = unpack(archive, settings.cache_dir, report)
    script = folder / "code" / settings.custom_code_program
    if settings.custom_code and settings.custom_code_dir is None and script.is_file():
        # The model's code is loaded, and its model_fn called, before the engine is started: too early for what comes out only then.
        raise StartError(
            f"{told} brings code/{script.name}, which is run from a folder only: unpack the archive to /opt/ml/model, "
            "or set TOKENPORT_CUSTOM_CODE=false to serve the model without it"
        )
    return LocalModel(str(folder))
