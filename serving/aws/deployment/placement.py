"""Whether it runs on the instances, and an inference component's copies have room there: SageMaker would try for long, and fail. Pure.

Nothing is said of instance types that the planner's table does not have.
"""

import math

from serving.aws.deployment.endpoint_request import Components, Hosting
from serving.errors import DeployError
from serving.planner.hardware import Instance
from serving.planner.instances import load_hardware

_BYTES_PER_MB = 2**20


def check_placement(hosting: Hosting, components: Components | None) -> None:
    """Raises DeployError: the image is for other processors, a copy is larger than an instance, or the most copies need more than the most
    instances."""
    instance = load_hardware().instances.get(hosting.instance_type)
    if instance is None:
        return
    if instance.unsupported is not None:
        raise DeployError(f"--instance-type {instance.name}: Tokenport does not run there: {instance.unsupported}")
    if components is not None:
        _check_room(instance, hosting, components)


def _check_room(instance: Instance, hosting: Hosting, components: Components) -> None:
    has_room_for = instance.num_gpus // components.accelerators
    if has_room_for == 0:
        raise DeployError(f"--accelerators {components.accelerators}: {instance.name} has {instance.num_gpus}")
    if instance.host_memory_bytes is not None:
        memory_mb = instance.host_memory_bytes // _BYTES_PER_MB
        has_room_for = min(has_room_for, memory_mb // components.memory_mb)
        if has_room_for == 0:
            raise DeployError(f"--memory-mb {components.memory_mb}: {instance.name} has {memory_mb}, part of which is the platform's")
    num_instances = math.ceil(components.max_copies / has_room_for)
    if num_instances > hosting.max_instances:
        raise DeployError(
            f"{components.max_copies} copies need {num_instances} instances, as {instance.name} has room for {has_room_for}: "
            f"--max-instances {hosting.max_instances} is too few"
        )
