"""From a candidate of a ranking to what is typed: Tokenport's settings, SageMaker's values, the command that deploys it."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from serving.planner.model import Model
from serving.planner.plan import PlanRequest
from serving.planner.ranking.ranking import Candidate
from serving.planner.ranking.sagemaker_values import INFERENCE_AMI_VERSION, SageMakerValues, sagemaker_values

_PREFIX = "TOKENPORT_"
_PLACE = "s3://BUCKET/PREFIX/"
_NOT_AS_ASKED = {"context", "concurrency", "quantization", "pipeline_parallel_size", "tensor_parallel_size", "data_parallel_size"}
_NOT_AS_ASKED |= {"max_num_seqs", "max_num_batched_tokens"}
"""Of a request what the candidate settles itself, or what is no setting."""


def settings_of(candidate: Candidate, request: PlanRequest) -> Mapping[str, str]:
    """Tokenport's settings as environment variables, by which the engine runs what was planned."""
    settled = candidate.plan.request if candidate.plan is not None else request
    settings: dict[str, Any] = {
        "max_model_len": settled.context,
        "tensor_parallel_size": candidate.num_ranks,
        "max_num_seqs": settled.max_num_seqs,
        "max_num_batched_tokens": settled.max_num_batched_tokens,
    }
    if candidate.num_replicas > 1:
        settings["data_parallel_size"] = candidate.num_replicas
    if candidate.quantization is not None:
        settings["quantization"] = candidate.quantization
    asked = {field.name: getattr(request, field.name) for field in fields(PlanRequest) if field.name not in _NOT_AS_ASKED}
    settings |= {name: value for name, value in asked.items() if value != getattr(PlanRequest(), name)}
    return {_PREFIX + name.upper(): str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}


def values_of(candidate: Candidate, model: Model) -> SageMakerValues:
    """What SageMaker must be told of the instance."""
    checkpoint_bytes = sum(tensor.num_bytes for tensor in model.tensors)
    return sagemaker_values(candidate.instance, checkpoint_bytes, candidate.num_ranks * candidate.num_replicas)


def deploy_command(candidate: Candidate, model: Model, settings: Mapping[str, str], values: SageMakerValues) -> str | None:
    """`tokenport deploy endpoint ...`; words in capitals are the user's to fill in. None for a machine that is not SageMaker's."""
    if not candidate.instance.name.startswith("ml."):
        return None
    words = ["tokenport", "deploy", "endpoint", *_files(model.name), "--instance-type", candidate.instance.name]
    words += ["--name", "NAME", "--role", "ROLE_ARN", "--image-uri", "IMAGE_URI", "--ami-version", INFERENCE_AMI_VERSION]
    words += ["--startup-timeout-s", str(values.startup_timeout_s), "--download-timeout-s", str(values.download_timeout_s)]
    if values.volume_gb is not None:
        words += ["--volume-gb", str(values.volume_gb)]
    words += [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    return shlex.join(words)


def _files(model: str) -> list[str]:
    """SageMaker takes a model from S3; a folder is sent there first."""
    folder = Path(model).parent if model.endswith(".json") else Path(model)
    return ["--model", str(folder), "--upload", _PLACE] if (folder / "config.json").is_file() else ["--model", _PLACE]
