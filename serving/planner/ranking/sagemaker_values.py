"""What a SageMaker endpoint must be told so that a plan runs there, within the limits of its API.

Limits from the API reference of CreateEndpointConfig (ProductionVariant): both timeouts 60 to 3600 s, a volume of 1 to 512 GB. The image is
built for CUDA 13, which needs driver 580: of the host images only one has it.
"""

import math
from dataclasses import dataclass
from typing import Any

from serving.planner.hardware import Instance

INFERENCE_AMI_VERSION = "al2023-ami-sagemaker-inference-gpu-4-1"
_LEAST_S, _MOST_S = 60, 3600
_MAX_VOLUME_GB = 512
_GB = 10**9
_BYTES_PER_S = 128 * 2**20
"""What a small gp2 volume gives (Amazon EBS user guide: 128 MiB/s up to 170 GiB): the least of the disks that a model is written to and
read from. NVMe disks are faster, so that the timeouts are rather too long."""
_START_S = 600
"""Besides reading the weights: importing, compiling, capturing graphs. An allowance."""
_IMAGE_GB = 30
"""Left free beside the model: the image's layers and the compile cache. An allowance."""


@dataclass(frozen=True)
class SageMakerValues:
    """Of a production variant, by the API's names in `to_json`. `volume_gb` None where the instance has disks of its own, which SageMaker
    then uses; `notes`: what the limits do not allow."""

    instance_type: str
    startup_timeout_s: int
    download_timeout_s: int
    volume_gb: int | None
    accelerators_per_component: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Fields of ProductionVariant, and the one of an inference component's ComputeResourceRequirements."""
        return {
            "InstanceType": self.instance_type,
            "InferenceAmiVersion": INFERENCE_AMI_VERSION,
            "ContainerStartupHealthCheckTimeoutInSeconds": self.startup_timeout_s,
            "ModelDataDownloadTimeoutInSeconds": self.download_timeout_s,
            "VolumeSizeInGB": self.volume_gb,
            "NumberOfAcceleratorDevicesRequired": self.accelerators_per_component,
            "notes": list(self.notes),
        }


def sagemaker_values(instance: Instance, checkpoint_bytes: float, num_gpus: int) -> SageMakerValues:
    """For a model whose files have `checkpoint_bytes`, of which one copy (an inference component) takes `num_gpus` of the instance."""
    reading_s = checkpoint_bytes / _BYTES_PER_S
    needed_gb = math.ceil(checkpoint_bytes / _GB) + _IMAGE_GB
    notes = []
    if _START_S + reading_s > _MOST_S:
        notes.append(
            f"reading the model may take longer than the {_MOST_S} s that SageMaker waits at most: split it with `tokenport prepare`"
        )
    if instance.disk_bytes is not None and needed_gb * _GB > instance.disk_bytes:
        notes.append(f"the model and the image need about {needed_gb} GB, the instance's disks have {instance.disk_bytes / _GB:.0f} GB")
    if instance.disk_bytes is None and needed_gb > _MAX_VOLUME_GB:
        notes.append(f"the model and the image need about {needed_gb} GB, a volume has {_MAX_VOLUME_GB} GB at most")
    return SageMakerValues(
        instance_type=instance.name,
        startup_timeout_s=_within(_START_S + reading_s),
        download_timeout_s=_within(2 * reading_s),
        volume_gb=None if instance.disk_bytes is not None else min(needed_gb, _MAX_VOLUME_GB),
        accelerators_per_component=num_gpus,
        notes=tuple(notes),
    )


def _within(seconds: float) -> int:
    """In whole minutes, within the limits."""
    return min(max(math.ceil(seconds / 60) * 60, _LEAST_S), _MOST_S)
