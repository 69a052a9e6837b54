"""A function that streams, as a deployment: role, its policy, function, code, URL. Pure.

Lambda Web Adapter, a layer, turns invocations into HTTP requests and streams what comes back: Lambda's own Python runtime cannot stream.
"""

import json
from dataclasses import dataclass
from typing import Any

from serving.aws.deployment.description import TAG, Call, Deployment, Exactly, Lookup, Reference, Resource, Status, role_name, tag_list
from serving.aws.deployment.lambda_package import HANDLER, code_sha256
from serving.aws.deployment.policies import Place, function_policy, trust_policy

RUNTIME = "python3.13"
_PORT = "8080"
_STATE = Status("State", frozenset({"Active", "Inactive"}), frozenset({"Failed"}), "StateReason")
_UPDATE_STATE = Status("LastUpdateStatus", frozenset({"Successful"}), frozenset({"Failed"}), "LastUpdateStatusReason")


@dataclass(frozen=True)
class FunctionRequest:
    """One of `bedrock_model` and `endpoint` answers. `role_arn` None makes a role that may do what is needed, and no more."""

    name: str
    place: Place
    adapter_layer_arn: str
    bedrock_model: str | None = None
    endpoint: str | None = None
    component: str | None = None
    role_arn: str | None = None
    memory_mb: int = 512
    timeout_s: int = 900


def describe_function(request: FunctionRequest, package: bytes) -> Deployment:
    """`package` is the zip."""
    made = _role_resources(request) if request.role_arn is None else ()
    role = request.role_arn or Reference(f"role {role_name(request.name)}", "Arn")
    return Deployment(
        request.name, (*made, _function_resource(request, package, role), _code_resource(request, package), _url_resource(request))
    )


def _role_resources(request: FunctionRequest) -> tuple[Resource, Resource]:
    name, policy_name = role_name(request.name), "answer"
    key, trust = {"RoleName": name}, trust_policy("lambda.amazonaws.com")
    role = Resource(
        "role",
        name,
        find=Lookup(Call("iam", "GetRole", key), "Role"),
        create=Call("iam", "CreateRole", {**key, "AssumeRolePolicyDocument": json.dumps(trust), "Tags": tag_list(request.name)}),
        expected={"AssumeRolePolicyDocument": trust},
        update=Call("iam", "UpdateAssumeRolePolicy", {**key, "PolicyDocument": json.dumps(trust)}),
    )
    policy = function_policy(request.place, request.name, request.bedrock_model, request.endpoint, request.component)
    policy_key = {**key, "PolicyName": policy_name}
    put = Call("iam", "PutRolePolicy", {**policy_key, "PolicyDocument": json.dumps(policy)})
    return role, Resource(
        "role-policy",
        policy_name,
        find=Lookup(Call("iam", "GetRolePolicy", policy_key)),
        create=put,
        expected={"PolicyDocument": Exactly(policy)},
        update=put,
    )


def _function_resource(request: FunctionRequest, package: bytes, role: str | Reference) -> Resource:
    key = {"FunctionName": request.name}
    variables = _environment(request)
    settings: dict[str, Any] = {
        "Runtime": RUNTIME,
        "Role": role,
        "Handler": HANDLER,
        "Timeout": request.timeout_s,
        "MemorySize": request.memory_mb,
        "Environment": {"Variables": variables},
    }
    layers = [request.adapter_layer_arn]
    return Resource(
        "function",
        request.name,
        find=Lookup(Call("lambda", "GetFunctionConfiguration", key)),
        create=Call(
            "lambda",
            "CreateFunction",
            {**key, **settings, "Layers": layers, "Architectures": ["x86_64"], "Code": {"ZipFile": package}, "Tags": {TAG: request.name}},
        ),
        # A variable that is no longer said must not stay.
        expected={**settings, "Environment": {"Variables": Exactly(variables)}, "Layers": [{"Arn": arn} for arn in layers]},
        update=Call("lambda", "UpdateFunctionConfiguration", {**key, **settings, "Layers": layers}),
        remove=Call("lambda", "DeleteFunction", key),
        status=_STATE,
    )


def _environment(request: FunctionRequest) -> dict[str, str]:
    """https://awslabs.github.io/aws-lambda-web-adapter/ for the adapter's part."""
    adapter = {
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap",
        "AWS_LWA_INVOKE_MODE": "response_stream",
        "AWS_LWA_PORT": _PORT,
        "AWS_LWA_READINESS_CHECK_PATH": "/ping",
        # What invokes the function without HTTP sends the same bodies.
        "AWS_LWA_PASS_THROUGH_PATH": "/v1/chat/completions",
    }
    own = {
        "TOKENPORT_TIMEOUT_S": str(request.timeout_s),
        "TOKENPORT_BEDROCK_MODEL": request.bedrock_model,
        "TOKENPORT_ENDPOINT": request.endpoint,
        "TOKENPORT_COMPONENT": request.component,
    }
    return adapter | {name: value for name, value in own.items() if value is not None}


def _code_resource(request: FunctionRequest, package: bytes) -> Resource:
    """The code by itself, since Lambda changes code and configuration by separate calls. The function is created with it."""
    key = {"FunctionName": request.name}
    put = Call("lambda", "UpdateFunctionCode", {**key, "ZipFile": package})
    return Resource(
        "function-code",
        request.name,
        find=Lookup(Call("lambda", "GetFunctionConfiguration", key)),
        expected={"CodeSha256": code_sha256(package)},
        update=put,
        status=_UPDATE_STATE,
    )


def _url_resource(request: FunctionRequest) -> Resource:
    """Signed requests only: an open URL would let anybody spend the account's money."""
    key, contents = {"FunctionName": request.name}, {"AuthType": "AWS_IAM", "InvokeMode": "RESPONSE_STREAM"}
    return Resource(
        "function-url",
        request.name,
        find=Lookup(Call("lambda", "GetFunctionUrlConfig", key)),
        create=Call("lambda", "CreateFunctionUrlConfig", {**key, **contents}),
        expected=contents,
        update=Call("lambda", "UpdateFunctionUrlConfig", {**key, **contents}),
    )
