"""What `tokenport plan MODEL --json` settled for an instance, as defaults of a deployment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.errors import DeployError


@dataclass(frozen=True)
class PlanValues:
    """None where no plan says it. `environment`: the settings by which the engine runs what was planned."""

    instance_type: str | None = None
    ami_version: str | None = None
    startup_timeout_s: int | None = None
    download_timeout_s: int | None = None
    volume_gb: int | None = None
    accelerators: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def read_plan(file: Path | None, instance_type: str | None) -> PlanValues:
    """Of the instance that is named, else of the first winner. Nothing for no file. Raises DeployError: no ranking, or not in it."""
    if file is None:
        return PlanValues()
    winners = _winners(file)
    on_sagemaker = [winner for winner in winners if winner["sagemaker"] is not None]
    for winner in on_sagemaker:
        if instance_type in (None, winner["instance"]):
            return _values(winner)
    there = ", ".join(dict.fromkeys(winner["instance"] for winner in on_sagemaker)) or "none"
    raise DeployError(f"--plan {file} has no winner for {instance_type or 'SageMaker'}; it has {there}")


def _winners(file: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(file.read_text())
        winners: list[dict[str, Any]] = document["winners"]
    except (OSError, ValueError) as error:
        raise DeployError(f"--plan {file} cannot be read: {error}") from error
    except (KeyError, TypeError) as error:
        raise DeployError(f"--plan {file} is no ranking: `tokenport plan MODEL --json`, without --instance, writes one") from error
    return winners


def _values(winner: Mapping[str, Any]) -> PlanValues:
    told = winner["sagemaker"]
    return PlanValues(
        instance_type=winner["instance"],
        ami_version=told["InferenceAmiVersion"],
        startup_timeout_s=told["ContainerStartupHealthCheckTimeoutInSeconds"],
        download_timeout_s=told["ModelDataDownloadTimeoutInSeconds"],
        volume_gb=told["VolumeSizeInGB"],
        accelerators=told["NumberOfAcceleratorDevicesRequired"],
        environment=winner["settings"],
    )
