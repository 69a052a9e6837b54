"""The words of `tokenport deploy endpoint`, read into an `EndpointRequest`. Ranges are those of SageMaker's API reference."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.aws.deployment.artifacts import Upload, plan_upload, split_uri
from serving.aws.deployment.command_line import Parser, bounded, matching, variable
from serving.aws.deployment.description import MAX_NAME_LENGTH
from serving.aws.deployment.endpoint_request import Batch, Components, Container, EndpointRequest, Hosting, Scaling, Traffic
from serving.errors import DeployError

DEFAULT_DEADLINE_S = 5400
"""A download and a start may take an hour each at SageMaker; most take minutes."""
NAME = matching(
    re.compile(rf"[a-zA-Z0-9](-*[a-zA-Z0-9]){{0,{MAX_NAME_LENGTH - 1}}}"),
    f"a name of letters, digits and single inner dashes, at most {MAX_NAME_LENGTH} long",
)
ROLE_ARN = matching(
    re.compile(r"arn:aws[a-z\-]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+"), "a role's ARN: arn:aws:iam::ACCOUNT:role/NAME is"
)
_INSTANCE = matching(re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+"), "an instance type of SageMaker: ml.g6.2xlarge is")
_S3 = matching(re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?"), "an S3 location: s3://bucket/prefix is")
_MAX_NUM_SEQS = "TOKENPORT_MAX_NUM_SEQS"


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
    """Raises WrongCommandLine, or DeployError for what cannot be together. Reads the files of a folder that is to be uploaded."""
    given = _parser().parse(words)
    upload = _upload(given)
    environment = dict(given.env)
    if len(environment) < len(given.env):
        raise DeployError("--env names a variable twice")
    request = EndpointRequest(
        name=given.name,
        container=Container(given.image_uri, given.role, upload.uri if upload else _s3_model(given.model), environment, upload is not None),
        hosting=_hosting(given),
        components=_components(given),
        scaling=_scaling(given, environment),
        traffic=_traffic(given),
        async_output=getattr(given, "async"),
        async_concurrency=given.async_concurrency,
        batch=_batch(given),
    )
    return EndpointOptions(request, upload, given.region, given.deadline_s, given.dry_run, given.policies, given.cloudformation)


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


def _hosting(given: Any) -> Hosting:
    return Hosting(
        instance_type=given.instance_type,
        min_instances=given.min_instances,
        max_instances=max(given.min_instances, 1) if given.max_instances is None else given.max_instances,
        ami_version=given.ami_version,
        startup_timeout_s=given.startup_timeout_s,
        download_timeout_s=given.download_timeout_s,
        volume_gb=given.volume_gb,
    )


def _components(given: Any) -> Components | None:
    own = {"accelerators": given.accelerators, "memory-mb": given.memory_mb, "min-copies": given.min_copies, "max-copies": given.max_copies}
    if not given.components:
        for name, value in own.items():
            if value is not None:
                raise DeployError(f"--{name} {value} is for --components; without it the model has the whole instance")
        return None
    if given.accelerators is None or given.memory_mb is None:
        raise DeployError("--components needs --accelerators and --memory-mb: what a copy takes of the instance")
    minimum = 1 if given.min_copies is None else given.min_copies
    return Components(given.accelerators, given.memory_mb, minimum, max(minimum, 1) if given.max_copies is None else given.max_copies)


def _scaling(given: Any, environment: dict[str, str]) -> Scaling | None:
    if given.target_concurrency is None and given.target_tokens is None:
        if given.metrics_namespace is not None:
            raise DeployError(f"--metrics-namespace {given.metrics_namespace} is for --target-tokens")
        return None
    max_num_seqs = environment.get(_MAX_NUM_SEQS)
    if max_num_seqs is not None and not max_num_seqs.isdecimal():
        raise DeployError(f"--env {_MAX_NUM_SEQS}={max_num_seqs} is no number")
    return Scaling(given.target_concurrency, given.target_tokens, given.metrics_namespace, int(max_num_seqs) if max_num_seqs else None)


def _traffic(given: Any) -> Traffic:
    if given.traffic_percent is not None and given.traffic == "all-at-once":
        raise DeployError(f"--traffic-percent {given.traffic_percent} needs --traffic canary or linear")
    if given.components and given.traffic != "all-at-once":
        raise DeployError(f"--traffic {given.traffic} is not for --components, which are updated copy by copy")
    return Traffic(
        shift=given.traffic,
        percent=10 if given.traffic_percent is None else given.traffic_percent,
        wait_s=given.traffic_wait_s,
        termination_wait_s=given.termination_wait_s,
        rollback_errors=given.rollback_errors,
        rollback_latency_ms=given.rollback_latency_ms,
    )


def _batch(given: Any) -> Batch | None:
    if (given.batch is None) != (given.batch_output is None):
        raise DeployError("--batch and --batch-output need each other: where the requests are and where the answers go")
    return None if given.batch is None else Batch(given.batch, given.batch_output)


def _parser() -> Parser:
    parser = Parser(prog="tokenport deploy endpoint", description="Put the container on SageMaker. The same words again change nothing.")
    add = parser.add_argument
    add("--name", required=True, type=NAME, metavar="NAME", help="of the deployment and the endpoint")
    add("--model", required=True, metavar="S3-OR-FOLDER", help="s3://bucket/prefix of the files, .tar.gz, or a folder for --upload")
    add("--upload", type=_S3, metavar="S3", help="where to put the folder; the same contents are sent once")
    add("--image-uri", required=True, metavar="URI", help="of the container, in ECR")
    add("--role", required=True, type=ROLE_ARN, metavar="ARN", help="execution role of the container (--policies prints what it needs)")
    add("--instance-type", required=True, type=_INSTANCE, metavar="TYPE", help="such as ml.g6.2xlarge")
    add("--env", action="append", default=[], type=variable, metavar="KEY=VALUE", help="a variable of the container; may be repeated")
    add("--region", metavar="REGION", help="else AWS_REGION, AWS_DEFAULT_REGION or the profile's")
    _add_hosting(parser.add_argument_group("the instance"))
    _add_kinds(parser.add_argument_group("other kinds of endpoint"))
    _add_scaling(parser.add_argument_group("scaling"))
    _add_updates(parser.add_argument_group("updates"))
    shows = parser.add_argument_group("instead of doing it (nothing is sent, no credentials are needed)").add_mutually_exclusive_group()
    shows.add_argument("--dry-run", action="store_true", help="print every call with its parameters, as JSON")
    shows.add_argument("--policies", action="store_true", help="print the least IAM policies: of the execution role and of the deployer")
    shows.add_argument("--cloudformation", type=Path, metavar="FILE", help="write the same as a template")
    add("--deadline-s", type=bounded(1), default=DEFAULT_DEADLINE_S, metavar="S", help="for all waiting together (default %(default)s)")
    return parser


def _add_hosting(group: Any) -> None:
    add = group.add_argument
    add("--ami-version", metavar="VERSION", help="InferenceAmiVersion; with a GPU the one that has CUDA 13's driver, if not given")
    add("--startup-timeout-s", type=bounded(60, 3600), metavar="S", help="until healthy (SageMaker's default: 480)")
    add("--download-timeout-s", type=bounded(60, 3600), metavar="S", help="for the model's files (default SageMaker's)")
    add("--volume-gb", type=bounded(1, 512), metavar="GB", help="of the EBS volume, for instances without a disk of their own")
    add("--min-instances", type=bounded(0), default=1, metavar="N", help="0 with --components or --async only (default 1)")
    add("--max-instances", type=bounded(1), metavar="N", help="(default: as many as at least)")


def _add_kinds(group: Any) -> None:
    add = group.add_argument
    add("--components", action="store_true", help="the model as an inference component: several on an endpoint, down to zero copies")
    add("--accelerators", type=bounded(1), metavar="N", help="GPUs of a copy")
    add("--memory-mb", type=bounded(128), metavar="MB", help="host memory of a copy, at least")
    add("--min-copies", type=bounded(0), metavar="N")
    add("--max-copies", type=bounded(1), metavar="N")
    add("--async", type=_S3, metavar="S3", help="an asynchronous endpoint that puts its answers there")
    add("--async-concurrency", type=bounded(1, 1000), metavar="N", help="requests at once on an instance")
    add("--batch", type=_S3, metavar="S3", help="no endpoint: a batch transform job over these JSON lines (needs a .tar.gz model)")
    add("--batch-output", type=_S3, metavar="S3", help="where its answers go")


def _add_scaling(group: Any) -> None:
    add = group.add_argument
    number = bounded(1, kind=float)
    add("--target-concurrency", type=number, metavar="N", help="requests at once a copy; at most max_num_seqs. With --async its backlog")
    add("--target-tokens", type=number, metavar="N", help="outstanding tokens a copy, as the server reports them to CloudWatch")
    add("--metrics-namespace", metavar="NAME", help="the CloudWatch namespace that the server reports to")


def _add_updates(group: Any) -> None:
    add = group.add_argument
    add("--traffic", choices=("all-at-once", "canary", "linear"), default="all-at-once", help="how traffic moves (default %(default)s)")
    add("--traffic-percent", type=bounded(1, 50), metavar="N", help="of the canary or of a linear step (default 10)")
    add("--traffic-wait-s", type=bounded(0, 3600), default=300, metavar="S", help="watched after each step (default %(default)s)")
    add("--termination-wait-s", type=bounded(0, 3600), default=120, metavar="S", help="the old fleet stays so long (default %(default)s)")
    add("--rollback-errors", type=bounded(1), default=5, metavar="N", help="5XX a minute that undo an update (default %(default)s)")
    add("--rollback-latency-ms", type=bounded(1), metavar="MS", help="mean ModelLatency that undoes an update (default: none does)")
