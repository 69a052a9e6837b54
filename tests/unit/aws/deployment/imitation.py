"""An account for tests: moto, with what moto lacks added before the request leaves botocore, which has validated it by then.

Added are UpdateEndpoint, inference components and their scaling; the test says what becomes of an update.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.loaders
import botocore.session
from botocore.awsrequest import AWSResponse
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.sagemaker.models import sagemaker_backends

from serving.aws.deployment.account import Account
from serving.aws.deployment.apply import Applied, apply
from serving.aws.deployment.description import Deployment
from serving.aws.deployment.destroy import destroy
from serving.aws.deployment.waiting import Waiting

REGION, NUMBER = "us-east-1", "123456789012"
_LOADER = botocore.loaders.create_loader()
_READING = ("Describe", "List", "Get", "Head")


@dataclass
class Imitation:
    """`operations` are all that were sent; `refused` those that AWS refuses, with the message. `rolls_back`: updates return to what was."""

    session: Any = field(default_factory=lambda: boto3.session.Session(region_name=REGION, botocore_session=_botocore_session()))
    operations: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    refused_once: dict[str, str] = field(default_factory=dict)
    rolls_back: bool = False
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    component_targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session.events.register("before-call", self._before_call)
        self.session.events.register("after-call.application-autoscaling.DescribeScalingPolicies", self._only_named_policies)
        self.account = Account(self.session)
        self._own_session = boto3.session.Session(region_name=REGION, botocore_session=_botocore_session())

    @property
    def changes(self) -> list[str]:
        """What was sent that changes something."""
        return [operation for operation in self.operations if not operation.startswith(_READING)]

    def waiting(self, deadline_s: float = 60.0) -> Waiting:
        return Waiting(self.account, self.lines.append, deadline_s=deadline_s, poll_s=0.0)

    def apply(self, deployment: Deployment) -> Applied:
        return apply(deployment, self.account, self.waiting(), self.lines.append)

    def destroy(self, name: str, *, delete_artifacts: bool = False) -> int:
        return destroy(name, self.account, self.waiting(), self.lines.append, delete_artifacts=delete_artifacts)

    def client(self, service: str) -> Any:
        """Of the test itself: not recorded."""
        return self._own_session.client(service)

    @property
    def endpoints(self) -> dict[str, Any]:
        return sagemaker_backends[NUMBER][REGION].endpoints

    def _before_call(self, model: Any, params: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]] | None:
        self.operations.append(model.name)
        if model.name in self.refused_once:
            return _error("ValidationException", self.refused_once.pop(model.name))
        if model.name in self.refused:
            return _error("ValidationException", self.refused[model.name])
        added = getattr(self, f"_{model.name}", None)
        if added is None:
            return None
        body = params["body"]
        answer = added(json.loads(body) if body else {})
        return answer if isinstance(answer, tuple) or answer is None else (_response(200), answer)

    def _UpdateEndpoint(self, body: dict[str, Any]) -> dict[str, Any]:
        endpoint = self.endpoints[body["EndpointName"]]
        if self.rolls_back:
            endpoint.failure_reason = "alarm chat-5xx went off"
        else:
            endpoint.endpoint_config_name = body["EndpointConfigName"]
        return {"EndpointArn": endpoint.arn}

    def _CreateEndpointConfig(self, body: dict[str, Any]) -> None:
        # moto wants a model in every variant, which one for components has not.
        if "ModelName" not in body["ProductionVariants"][0]:
            backend = sagemaker_backends[NUMBER][REGION]
            backend.validate_production_variants = lambda variants: None

    def _CreateInferenceComponent(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["InferenceComponentName"]
        arn = f"arn:aws:sagemaker:{REGION}:{NUMBER}:inference-component/{name}"
        self.components[name] = {
            **body,
            "InferenceComponentArn": arn,
            "InferenceComponentStatus": "InService",
            "RuntimeConfig": _copies(body),
        }
        return {"InferenceComponentArn": arn}

    def _UpdateInferenceComponent(self, body: dict[str, Any]) -> dict[str, Any]:
        component = self.components[body["InferenceComponentName"]]
        component["Specification"] = body["Specification"]
        component["RuntimeConfig"] = _copies(body) or component["RuntimeConfig"]
        return {"InferenceComponentArn": component["InferenceComponentArn"]}

    def _DescribeInferenceComponent(self, body: dict[str, Any]) -> Any:
        name = body["InferenceComponentName"]
        return self.components.get(name) or _error("ValidationException", f"Could not find inference component {name}")

    def _ListInferenceComponents(self, body: dict[str, Any]) -> dict[str, Any]:
        of_endpoint = [item for item in self.components.values() if item["EndpointName"] == body["EndpointNameEquals"]]
        return {"InferenceComponents": of_endpoint}

    def _DeleteInferenceComponent(self, body: dict[str, Any]) -> dict[str, Any]:
        del self.components[body["InferenceComponentName"]]
        return {}

    def _ListTags(self, body: dict[str, Any]) -> dict[str, Any] | None:
        for component in self.components.values():
            if body.get("ResourceArn") == component["InferenceComponentArn"]:
                return {"Tags": component["Tags"]}
        return None

    def _RegisterScalableTarget(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if not body["ResourceId"].startswith("inference-component/"):
            return None
        self.component_targets[body["ResourceId"]] = {**body, "policies": {}}
        return {"ScalableTargetARN": "arn:aws:application-autoscaling:us-east-1:123456789012:scalable-target/1"}

    def _DescribeScalableTargets(self, body: dict[str, Any]) -> dict[str, Any] | None:
        found = [self.component_targets[name] for name in body["ResourceIds"] if name in self.component_targets]
        return {"ScalableTargets": found} if found or "DesiredCopyCount" in str(body) else None

    def _PutScalingPolicy(self, body: dict[str, Any]) -> dict[str, Any] | None:
        target = self.component_targets.get(body["ResourceId"])
        if target is None:
            return None
        policy = {**body, "PolicyARN": f"arn:aws:autoscaling:policy/{body['PolicyName']}"}
        target["policies"][body["PolicyName"]] = policy
        return {"PolicyARN": policy["PolicyARN"]}

    def _DescribeScalingPolicies(self, body: dict[str, Any]) -> dict[str, Any] | None:
        self._named_policies = body.get("PolicyNames")
        target = self.component_targets.get(body["ResourceId"])
        if target is None:
            return None
        wanted = body.get("PolicyNames", list(target["policies"]))
        return {"ScalingPolicies": [target["policies"][name] for name in wanted if name in target["policies"]]}

    def _DeleteScalingPolicy(self, body: dict[str, Any]) -> dict[str, Any] | None:
        target = self.component_targets.get(body["ResourceId"])
        if target is None:
            return None
        del target["policies"][body["PolicyName"]]
        return {}

    def _only_named_policies(self, parsed: dict[str, Any], **_: Any) -> None:
        # moto answers with all policies of the resource.
        if self._named_policies is not None:
            parsed["ScalingPolicies"] = [found for found in parsed["ScalingPolicies"] if found["PolicyName"] in self._named_policies]

    def _DeregisterScalableTarget(self, body: dict[str, Any]) -> dict[str, Any] | None:
        # AWS takes the target's policies with it, moto leaves them.
        policies = applicationautoscaling_backends[NUMBER][REGION].policies
        for key in [key for key, policy in policies.items() if policy.resource_id == body["ResourceId"]]:
            del policies[key]
        return {} if self.component_targets.pop(body["ResourceId"], None) else None


def _copies(body: dict[str, Any]) -> dict[str, Any]:
    """As it is described."""
    return {"DesiredCopyCount": body["RuntimeConfig"]["CopyCount"]} if "RuntimeConfig" in body else {}


def _botocore_session() -> Any:
    session = botocore.session.get_session()
    # Reading SageMaker's model takes a good part of a second; it is the same in every test.
    session.register_component("data_loader", _LOADER)
    return session


def _response(status: int) -> AWSResponse:
    return AWSResponse("https://imitation", status, {}, None)


def _error(code: str, message: str) -> tuple[AWSResponse, dict[str, Any]]:
    return _response(400), {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}
