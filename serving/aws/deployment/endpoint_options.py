"""The words of `tokenport deploy endpoint`, read into an `EndpointRequest`. What a plan settled is the default of what is not said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.aws.deployment.artifacts import Upload, plan_upload, split_uri
from serving.aws.deployment.endpoint_parser import endpoint_parser
from serving.aws.deployment.endpoint_request import Batch, Components, Container, EndpointRequest, Hosting, Scaling, Traffic
from serving.aws.deployment.plan_values import PlanValues, read_plan
from serving.errors import DeployError

_MAX_NUM_SEQS, _DATA_PARALLEL_SIZE = "TOKENPORT_MAX_NUM_SEQS", "TOKENPORT_DATA_PARALLEL_SIZE"
_OF_ENDPOINTS = ("max_instances", "startup_timeout_s", "download_timeout_s", "volume_gb")
_OF_FLEETS = ("traffic", "traffic_percent", "termination_wait_s")
_OF_UPDATES = ("traffic_wait_s", "rollback_errors", "rollback_latency_ms")


@dataclass(frozen=True)
class EndpointOptions:
    """`upload` is what has to be in S3 first, None where the model is there already. Of `dry_run`, `policies` and `cloudformation` each
    shows something and sends nothing."""

    request: EndpointRequest
    upload: Upload | None
    region: str | None
    deadline_s: int
    dry_run: bool
    policies: bool
    cloudformation: Path | None


def read_options(words: Sequence[str]) -> EndpointOptions:
    """Raises DeployError for what cannot be together; ends the process for wrong words. Reads the files of a folder to be uploaded."""
    given = endpoint_parser().namespace(words)
    _refuse_without_effect(given)
    plan = read_plan(given.plan, given.instance_type)
    upload = _upload(given)
    environment = _environment(given, plan)
    model_uri = upload.uri if upload else _s3_model(given.model)
    request = EndpointRequest(
        name=given.name,
        container=Container(given.image_uri, given.role, model_uri, environment, was_uploaded=upload is not None),
        hosting=_hosting(given, plan),
        components=_components(given, plan),
        scaling=_scaling(given, environment),
        traffic=_traffic(given),
        async_output=given.async_output,
        async_concurrency=given.async_concurrency,
        batch=_batch(given),
    )
    return EndpointOptions(request, upload, given.region, given.deadline_s, given.dry_run, given.policies, given.cloudformation)


def _environment(given: Any, plan: PlanValues) -> dict[str, str]:
    told = dict(given.env)
    if len(told) < len(given.env):
        raise DeployError("--env names a variable twice")
    if given.metrics_namespace is None:
        return {**plan.environment, **told}
    # The server reports under the name that the policy looks for.
    metrics = {"TOKENPORT_EMF_NAMESPACE": given.metrics_namespace, "TOKENPORT_EMF_ENDPOINT_NAME": given.name}
    for name in metrics.keys() & told.keys():
        raise DeployError(f"--env {name} is set by --metrics-namespace")
    return {**plan.environment, **metrics, **told}


def _upload(given: Any) -> Upload | None:
    if given.model.startswith("s3://"):
        if given.upload is not None:
            raise DeployError(f"--upload is for a folder; --model {given.model} is in S3 already")
        return None
    if given.upload is None:
        raise DeployError(f"--model {given.model} is not in S3: say with --upload s3://bucket/prefix where to put the folder")
    return plan_upload(Path(given.model), given.upload, given.name)


def _s3_model(uri: str) -> str:
    split_uri("--model", uri)
    # Without the slash a prefix also matches its longer neighbours.
    return uri if uri.endswith(("/", ".tar.gz")) else f"{uri}/"


def _hosting(given: Any, plan: PlanValues) -> Hosting:
    instance_type = given.instance_type or plan.instance_type
    if instance_type is None:
        raise DeployError("say on what: --instance-type, or --plan with what `tokenport plan MODEL --json` found")
    return Hosting(
        instance_type=instance_type,
        min_instances=given.min_instances,
        max_instances=max(given.min_instances, 1) if given.max_instances is None else given.max_instances,
        # A plan is for endpoints; jobs have other hosts.
        ami_version=given.ami_version or (None if given.batch else plan.ami_version),
        startup_timeout_s=_first(given.startup_timeout_s, plan.startup_timeout_s),
        download_timeout_s=_first(given.download_timeout_s, plan.download_timeout_s),
        volume_gb=_first(given.volume_gb, plan.volume_gb),
    )


def _first(told: int | None, planned: int | None) -> int | None:
    return planned if told is None else told


def _components(given: Any, plan: PlanValues) -> Components | None:
    own = {"accelerators": given.accelerators, "memory-mb": given.memory_mb, "min-copies": given.min_copies, "max-copies": given.max_copies}
    if not given.components:
        for name, value in own.items():
            if value is not None:
                raise DeployError(f"--{name} {value} is for --components; without it the model has the whole instance")
        return None
    accelerators = _first(given.accelerators, plan.accelerators)
    if accelerators is None or given.memory_mb is None:
        raise DeployError("--components needs --accelerators and --memory-mb: what a copy takes of the instance")
    minimum = 1 if given.min_copies is None else given.min_copies
    return Components(accelerators, given.memory_mb, minimum, max(minimum, 1) if given.max_copies is None else given.max_copies)


def _scaling(given: Any, environment: Mapping[str, str]) -> Scaling | None:
    if given.target_concurrency is None and given.target_tokens is None:
        if given.metrics_namespace is not None:
            raise DeployError(f"--metrics-namespace {given.metrics_namespace} is for --target-tokens")
        return None
    max_num_seqs, num_engines = (_number(environment, name) for name in (_MAX_NUM_SEQS, _DATA_PARALLEL_SIZE))
    limit = None if max_num_seqs is None else max_num_seqs * (num_engines or 1)
    return Scaling(given.target_concurrency, given.target_tokens, given.metrics_namespace, limit)


def _number(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name)
    if value is not None and not value.isdecimal():
        raise DeployError(f"{name}={value} is no whole number")
    return None if value is None else int(value)


def _traffic(given: Any) -> Traffic:
    told = {
        "shift": given.traffic,
        "percent": given.traffic_percent,
        "wait_s": given.traffic_wait_s,
        "termination_wait_s": given.termination_wait_s,
        "rollback_errors": given.rollback_errors,
        "rollback_latency_ms": given.rollback_latency_ms,
    }
    return replace(Traffic(), **{name: value for name, value in told.items() if value is not None})


def _refuse_without_effect(given: Any) -> None:
    """Options that what else was given leaves nothing to do for."""
    for name in _OF_FLEETS:
        _refuse(given, name, given.components, "components are updated copy by copy")
    for name in (*_OF_ENDPOINTS, *_OF_FLEETS, *_OF_UPDATES):
        _refuse(given, name, given.batch is not None, "a batch has no endpoint")
    _refuse(given, "traffic_percent", given.traffic in (None, "all-at-once"), "say --traffic canary or linear")


def _refuse(given: Any, name: str, is_idle: bool, reason: str) -> None:
    value = getattr(given, name)
    if is_idle and value is not None:
        raise DeployError(f"--{name.replace('_', '-')} {value} has no effect here: {reason}")


def _batch(given: Any) -> Batch | None:
    if (given.batch is None) != (given.batch_output is None):
        raise DeployError("--batch and --batch-output need each other: where the requests are and where the answers go")
    return None if given.batch is None else Batch(given.batch, given.batch_output)
