"""What `tokenport deploy endpoint` is asked for. A combination that SageMaker refuses is refused here, before anything is sent.

Source of the limits: the API reference of CreateModel, CreateEndpointConfig, CreateInferenceComponent and UpdateEndpoint.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serving.errors import DeployError
from serving.planner.ranking.sagemaker_values import INFERENCE_AMI_VERSION

TrafficShift = Literal["all-at-once", "canary", "linear"]
VARIANT = "AllTraffic"
_GPU_FAMILIES = ("ml.g", "ml.p")
_BATCH_AMI_VERSION = "al2-ami-sagemaker-batch-gpu-535"
"""The newest of those that CreateTransformJob's reference names; an endpoint's is none of them."""
_ECR_IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)(?:[:@].+)?")
LONGEST_UPDATE_S = 28800
_MAX_ENVIRONMENT = 100
_MAX_VARIABLE_BYTES = 1024
_MAX_ENVIRONMENT_BYTES = 32 * 2**10


@dataclass(frozen=True)
class Repository:
    """Of ECR."""

    account: str
    region: str
    name: str


@dataclass(frozen=True)
class Container:
    """`model_uri`: an S3 prefix ending in a slash, or a `.tar.gz`. `was_uploaded`: by this deployment, so that it may also delete it."""

    image_uri: str
    role_arn: str
    model_uri: str
    environment: Mapping[str, str] = field(default_factory=dict)
    was_uploaded: bool = False

    @property
    def is_archive(self) -> bool:
        return self.model_uri.endswith(".tar.gz")


@dataclass(frozen=True)
class Hosting:
    """None leaves a value to SageMaker's default (8 minutes to become healthy); of `ami_version` see `settled_ami_version`."""

    instance_type: str
    min_instances: int = 1
    max_instances: int = 1
    ami_version: str | None = None
    startup_timeout_s: int | None = None
    download_timeout_s: int | None = None
    volume_gb: int | None = None

    def settled_ami_version(self, *, is_batch: bool) -> str | None:
        """The version sent: with a GPU the one that the image needs, if none was told. Jobs have hosts of their own."""
        usual = _BATCH_AMI_VERSION if is_batch else INFERENCE_AMI_VERSION
        return self.ami_version or (usual if self.instance_type.startswith(_GPU_FAMILIES) else None)


@dataclass(frozen=True)
class Components:
    """The model as an inference component: what a copy needs of the instance, and how many copies there may be."""

    accelerators: int
    memory_mb: int
    min_copies: int = 1
    max_copies: int = 1


@dataclass(frozen=True)
class Scaling:
    """What a copy (or an instance) should carry: requests at once, outstanding tokens, or both, the more demanding of which then holds.
    `max_num_seqs` is how many sequences its engines run at once, None where nobody said."""

    target_concurrency: float | None = None
    target_tokens: float | None = None
    metrics_namespace: str | None = None
    max_num_seqs: int | None = None


@dataclass(frozen=True)
class Traffic:
    """How an update takes over: in what steps, how long it is watched after each, when the old fleet ends, and what rolls it back.
    `rollback_errors` are 5XX answers a minute; `rollback_latency_ms` the mean of ModelLatency."""

    shift: TrafficShift = "all-at-once"
    percent: int = 10
    wait_s: int = 300
    termination_wait_s: int = 120
    rollback_errors: int = 5
    rollback_latency_ms: int | None = None

    @property
    def waits_s(self) -> int:
        """Of an update, all together."""
        num_steps = {"all-at-once": 1, "canary": 2, "linear": math.ceil(100 / self.percent)}[self.shift]
        return num_steps * self.wait_s + self.termination_wait_s


@dataclass(frozen=True)
class Batch:
    """A transform job in an endpoint's place: JSON lines at `source`, a request each."""

    source: str
    output: str


@dataclass(frozen=True)
class EndpointRequest:
    """All of it. `async_output` makes an asynchronous endpoint that writes its answers there."""

    name: str
    container: Container
    hosting: Hosting
    components: Components | None = None
    scaling: Scaling | None = None
    traffic: Traffic = Traffic()
    async_output: str | None = None
    async_concurrency: int | None = None
    batch: Batch | None = None

    @property
    def capacity(self) -> tuple[int, int]:
        """The fewest and the most that scaling may make of it: copies of a component, or instances."""
        if self.components is not None:
            return self.components.min_copies, self.components.max_copies
        return self.hosting.min_instances, self.hosting.max_instances


def repository_of(image_uri: str) -> Repository:
    """Where an image is. Raises DeployError: not in ECR, which is all that SageMaker pulls from without more to it."""
    image = _ECR_IMAGE.fullmatch(image_uri)
    if image is None:
        told = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tokenport:1"
        raise DeployError(f"--image-uri {image_uri} is no image in ECR, from where SageMaker pulls: {told} is")
    return Repository(*image.groups())


def check(request: EndpointRequest) -> None:
    """Raises DeployError for what cannot be, or cannot be together. Ranges are checked where options are read."""
    repository_of(request.container.image_uri)
    minimum, maximum = request.capacity
    if minimum > maximum or request.hosting.min_instances > request.hosting.max_instances:
        raise DeployError("a --min-... is above its --max-...: the least that may run cannot be more than the most")
    if request.async_concurrency is not None and request.async_output is None:
        raise DeployError(f"--async-concurrency {request.async_concurrency} is for --async")
    if request.batch is not None:
        _check_batch(request)
    if request.components is not None and request.async_output is not None:
        raise DeployError("--async and --components exclude each other: SageMaker hosts inference components on real-time endpoints only")
    if request.hosting.min_instances == 0 and request.components is None and request.async_output is None:
        raise DeployError("--min-instances 0 needs --components or --async: no other endpoint scales to zero")
    if request.components is not None and (request.components.min_copies == 0) != (request.hosting.min_instances == 0):
        raise DeployError("scaling to zero needs both --min-instances 0 and --min-copies 0")
    _check_scaling(request, is_elastic=minimum < maximum)
    _check_traffic(request.traffic)
    _check_environment(request.container.environment)


def _check_batch(request: EndpointRequest) -> None:
    if not request.container.is_archive:
        # ModelDataSource, CreateModel: an uncompressed prefix is for real-time and asynchronous endpoints only.
        raise DeployError(f"--batch needs a .tar.gz, which --model {request.container.model_uri} is not: SageMaker's jobs take no prefix")
    if request.components or request.async_output or request.scaling:
        raise DeployError("--batch makes a job and no endpoint: --components, --async and --target-... are not for it")


def _check_scaling(request: EndpointRequest, *, is_elastic: bool) -> None:
    scaling = request.scaling
    if is_elastic and scaling is None:
        raise DeployError("between --min-... and --max-... it scales: say how much one carries, by --target-concurrency or --target-tokens")
    if scaling is None:
        return
    if not is_elastic:
        raise DeployError("--target-concurrency and --target-tokens need room to scale: raise --max-instances or --max-copies")
    if (scaling.target_tokens is None) != (scaling.metrics_namespace is None):
        raise DeployError("--target-tokens and --metrics-namespace need each other: in that namespace the server reports OutstandingTokens")
    if request.async_output is not None and scaling.target_tokens is not None:
        raise DeployError("--target-tokens is not for --async, which scales on its backlog: use --target-concurrency")
    if scaling.max_num_seqs is not None and scaling.target_concurrency is not None and scaling.target_concurrency > scaling.max_num_seqs:
        raise DeployError(
            f"--target-concurrency {scaling.target_concurrency:g} is above max_num_seqs {scaling.max_num_seqs}: it would scale "
            f"only once requests queue; at most {scaling.max_num_seqs}"
        )


def _check_traffic(traffic: Traffic) -> None:
    lowest = {"all-at-once": 0, "canary": 1, "linear": 10}[traffic.shift]
    if lowest and not lowest <= traffic.percent <= 50:
        raise DeployError(f"--traffic-percent {traffic.percent} with --traffic {traffic.shift}: SageMaker takes {lowest} to 50")
    if traffic.waits_s >= LONGEST_UPDATE_S:
        raise DeployError(
            f"--traffic-wait-s {traffic.wait_s} and --termination-wait-s {traffic.termination_wait_s} make {traffic.waits_s} s of waiting "
            f"with steps of {traffic.percent} %: SageMaker ends an update after {LONGEST_UPDATE_S} s"
        )


def _check_environment(environment: Mapping[str, str]) -> None:
    if len(environment) > _MAX_ENVIRONMENT:
        raise DeployError(f"{len(environment)} variables by --env: SageMaker takes {_MAX_ENVIRONMENT}")
    for name, value in environment.items():
        if max(len(name.encode()), len(value.encode())) > _MAX_VARIABLE_BYTES:
            raise DeployError(f"--env {name} is longer than the {_MAX_VARIABLE_BYTES} bytes that SageMaker takes for a name or a value")
    num_bytes = sum(len(f"{name}{value}".encode()) for name, value in environment.items())
    if num_bytes > _MAX_ENVIRONMENT_BYTES:
        raise DeployError(f"the variables by --env have {num_bytes} bytes together: SageMaker takes {_MAX_ENVIRONMENT_BYTES}")
