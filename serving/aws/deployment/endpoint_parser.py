"""The options of `tokenport deploy endpoint`. Ranges are those of SageMaker's API reference."""

from pathlib import Path
from typing import Any

from serving.aws.deployment.endpoint_request import Traffic
from serving.aws.deployment.option_types import INSTANCE_TYPE, NAME, NAMESPACE, ROLE_ARN, S3_URI, UPLOAD_URI, bounded, variable
from serving.planner.commands.one_line_parser import OneLineParser

DEFAULT_DEADLINE_S = 5400
"""A download and a start may take an hour each at SageMaker; most take minutes."""


def endpoint_parser() -> OneLineParser:
    """Wrong words end the process with one line and code 2."""
    parser = OneLineParser(
        prog="tokenport deploy endpoint", description="Put the container on SageMaker. The same words again change nothing."
    )
    add = parser.add_argument
    add("--name", required=True, type=NAME, metavar="NAME", help="of the deployment and the endpoint")
    add("--model", required=True, metavar="S3-OR-FOLDER", help="s3://bucket/prefix of the files, .tar.gz, or a folder for --upload")
    add("--upload", type=UPLOAD_URI, metavar="S3", help="where to put the folder; the same contents are sent once")
    add("--image-uri", required=True, metavar="URI", help="of the container, in ECR")
    add("--role", required=True, type=ROLE_ARN, metavar="ARN", help="execution role of the container (--policies prints what it needs)")
    add("--instance-type", type=INSTANCE_TYPE, metavar="TYPE", help="such as ml.g6.2xlarge (default: the plan's)")
    add("--plan", type=Path, metavar="FILE", help="what `tokenport plan MODEL --json` wrote: defaults for instance, timeouts, variables")
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
    add("--ami-version", metavar="VERSION", help="of the host; with a GPU the one that goes with CUDA 13, if not given")
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
    add("--async", dest="async_output", type=S3_URI, metavar="S3", help="an asynchronous endpoint that puts its answers there")
    add("--async-concurrency", type=bounded(1, 1000), metavar="N", help="requests at once on an instance")
    add("--batch", type=S3_URI, metavar="S3", help="no endpoint: a batch transform job over these JSON lines (needs a .tar.gz model)")
    add("--batch-output", type=S3_URI, metavar="S3", help="where its answers go")


def _add_scaling(group: Any) -> None:
    add = group.add_argument
    number = bounded(1, kind=float)
    add("--target-concurrency", type=number, metavar="N", help="requests at once a copy; at most max_num_seqs. With --async its backlog")
    add("--target-tokens", type=number, metavar="N", help="outstanding tokens a copy, as the server reports them to CloudWatch")
    add("--metrics-namespace", type=NAMESPACE, metavar="NAME", help="the CloudWatch namespace that the server reports to")


def _add_updates(group: Any) -> None:
    add, usual = group.add_argument, Traffic()
    add("--traffic", choices=("all-at-once", "canary", "linear"), help=f"how traffic moves (default {usual.shift})")
    add("--traffic-percent", type=bounded(1, 50), metavar="N", help=f"of the canary or of a linear step (default {usual.percent})")
    add("--traffic-wait-s", type=bounded(0, 3600), metavar="S", help=f"watched after each step or copy (default {usual.wait_s})")
    add("--termination-wait-s", type=bounded(0, 3600), metavar="S", help=f"the old fleet stays (default {usual.termination_wait_s})")
    add("--rollback-errors", type=bounded(1), metavar="N", help=f"5XX a minute that undo an update (default {usual.rollback_errors})")
    add("--rollback-latency-ms", type=bounded(1), metavar="MS", help="mean ModelLatency that undoes an update (default: none does)")
