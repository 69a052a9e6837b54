"""`tokenport deploy endpoint|lambda|destroy`: progress goes to stderr, what was asked for to stdout. Run where AWS credentials are.

Each is described first (`deployment/`), then shown, written as a template, or brought about.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.aws.deployment.account import Account, open_account, settled_region
from serving.aws.deployment.apply import apply
from serving.aws.deployment.artifacts import carry_out
from serving.aws.deployment.cloudformation import template
from serving.aws.deployment.deployer_policy import deployer_policy
from serving.aws.deployment.description import Deployment, role_name
from serving.aws.deployment.destroy import destroy
from serving.aws.deployment.endpoint_description import describe_endpoint
from serving.aws.deployment.endpoint_options import read_options as read_endpoint
from serving.aws.deployment.endpoint_parser import DEFAULT_DEADLINE_S
from serving.aws.deployment.inventory import find_all
from serving.aws.deployment.lambda_description import describe_function
from serving.aws.deployment.lambda_options import read_options as read_function
from serving.aws.deployment.lambda_package import build_package
from serving.aws.deployment.option_types import NAME, bounded
from serving.aws.deployment.policies import caller_policy, execution_policy, function_policy, place_of, trust_policy
from serving.aws.deployment.showing import shown, shown_call
from serving.aws.deployment.waiting import Waiting
from serving.errors import DeployError
from serving.planner.commands.one_line_parser import OneLineParser

_USAGE = """\
usage: tokenport deploy COMMAND [--OPTION VALUE ...]

  endpoint  put the container on SageMaker: model, configuration, endpoint or inference component, scaling, alarms
  lambda    a function with a URL that streams what Bedrock or an endpoint answers, for sporadic use
  destroy   take away all that a deployment made, and nothing else: destroy NAME

Each explains its options: tokenport deploy endpoint --help
"""
_POLL_S = 5.0
_WRONG_COMMAND_LINE, _INTERRUPTED = 2, 130


def run_deploy(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """The process's exit code. Raises DeployError; ends the process for wrong words."""
    commands: dict[str, Callable[[Sequence[str], Mapping[str, str]], int]] = {
        "endpoint": _endpoint,
        "lambda": _function,
        "destroy": _destroy,
    }
    command = words[0] if words else "--help"
    if command in ("--help", "-h"):
        print(_USAGE)
        return 0
    if command not in commands:
        print(f"tokenport deploy: unknown command {command!r}; expected {', '.join(commands)}", file=sys.stderr)
        return _WRONG_COMMAND_LINE
    try:
        return commands[command](words[1:], environ)
    except KeyboardInterrupt:
        print("tokenport: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return _INTERRUPTED


def _endpoint(words: Sequence[str], environ: Mapping[str, str]) -> int:
    options = read_endpoint(words)
    request = options.request
    deployment = describe_endpoint(request)
    if options.dry_run:
        _print_json(shown(deployment, options.upload.calls() if options.upload else ()))
    elif options.policies:
        place = place_of(request.container.role_arn, settled_region(options.region, environ))
        deployer = deployer_policy(place, deployment, role_arn=request.container.role_arn, service="sagemaker", upload=options.upload)
        trust = trust_policy("sagemaker.amazonaws.com")
        _print_json({"execution_role": execution_policy(place, request), "execution_role_trust": trust, "deployer": deployer})
    elif options.cloudformation is not None:
        _write_template(deployment, options.cloudformation)
        if options.upload is not None:
            print(f"{options.upload.uri}: put the model's files there; nothing was sent")
    else:
        account = _open(options.region, environ, place_of(request.container.role_arn, "").account)
        if options.upload is not None:
            carry_out(options.upload, account, _tell)
        _apply(deployment, account, options.deadline_s, before=[options.upload.uri] if options.upload else ())
    return 0


def _function(words: Sequence[str], environ: Mapping[str, str]) -> int:
    options = read_function(words, environ)
    request, package = options.request, build_package()
    deployment = describe_function(request, package)
    if options.dry_run:
        _print_json(shown(deployment))
    elif options.policies:
        place = request.place
        role = request.role_arn or f"arn:{place.partition}:iam::{place.account}:role/{role_name(request.name)}"
        own = function_policy(place, request.name, request.bedrock_model, request.endpoint, request.component)
        deployer = deployer_policy(place, deployment, role_arn=role, service="lambda")
        _print_json({"function_role": own, "caller": caller_policy(place, request.name), "deployer": deployer})
    elif options.cloudformation is not None:
        _write_template(deployment, options.cloudformation)
        code = options.cloudformation.with_suffix(".zip")
        _write(code, package)
        print(f"{code}: put it in S3, and say where with the parameters CodeBucket and CodeKey")
    else:
        account = _open(request.place.region, environ, request.place.account)
        found = _apply(deployment, account, options.deadline_s)
        print(found[f"function-url {request.name}"]["FunctionUrl"])
    return 0


def _destroy(words: Sequence[str], environ: Mapping[str, str]) -> int:
    parser = OneLineParser(prog="tokenport deploy destroy", description="Take away all that the deployment NAME made, and nothing else.")
    parser.add_argument("name", type=NAME, metavar="NAME")
    parser.add_argument("--region", metavar="REGION", help="else AWS_REGION, AWS_DEFAULT_REGION or the profile's")
    parser.add_argument("--delete-artifacts", action="store_true", help="also what it uploaded to S3")
    parser.add_argument("--deadline-s", type=bounded(1), default=DEFAULT_DEADLINE_S, metavar="S", help="for all waiting together")
    parser.add_argument("--dry-run", action="store_true", help="look, and print the calls that would delete it, as JSON")
    given = parser.namespace(words)
    account = open_account(settled_region(given.region, environ))
    if given.dry_run:
        _print_json({"deployment": given.name, "calls": [shown_call(found.removal) for found in find_all(account, given.name)]})
        return 0
    waiting = Waiting(account, _tell, deadline_s=given.deadline_s, poll_s=_POLL_S)
    num_deleted = destroy(given.name, account, waiting, _tell, delete_artifacts=given.delete_artifacts)
    print(f"{given.name}: {num_deleted} resources deleted" if num_deleted else f"{given.name}: there is nothing of it")
    return 0


def _open(region: str | None, environ: Mapping[str, str], number: str) -> Account:
    account = open_account(settled_region(region, environ))
    account.check_number(number)
    return account


def _apply(deployment: Deployment, account: Account, deadline_s: float, before: Sequence[str] = ()) -> Mapping[str, Mapping[str, Any]]:
    waiting = Waiting(account, _tell, deadline_s=deadline_s, poll_s=_POLL_S)
    applied = apply(deployment, account, waiting, _tell, before=before)
    print(f"{deployment.name}: {applied.num_changes} changes" if applied.num_changes else f"{deployment.name}: nothing to change")
    return applied.found


def _write_template(deployment: Deployment, file: Path) -> None:
    written = template(deployment)
    _write(file, (json.dumps(written, indent=2) + "\n").encode())
    print(f"{file}: {len(written['Resources'])} resources")


def _write(file: Path, contents: bytes) -> None:
    try:
        file.write_bytes(contents)
    except OSError as error:
        raise DeployError(f"--cloudformation {file} cannot be written: {error.strerror}") from error


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, indent=2))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
