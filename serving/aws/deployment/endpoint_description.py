"""An endpoint as a deployment: model, endpoint configuration, alarms, endpoint, inference component, scaling. Pure."""

from typing import Any

from serving.aws.deployment.autoscaling import deregister, scaling_resources
from serving.aws.deployment.description import UPLOADED_TAG, Call, Deployment, Lookup, Resource, Status, tag_list, versioned
from serving.aws.deployment.endpoint_request import VARIANT, Batch, Components, Container, EndpointRequest, Hosting, check
from serving.aws.deployment.placement import check_placement
from serving.aws.deployment.rollback import alarm_resources, blue_green, rolling

ENDPOINT_STATUS = Status("EndpointStatus", frozenset({"InService"}), frozenset({"Failed", "UpdateRollbackFailed"}), "FailureReason")
JOB_STATUS = Status("TransformJobStatus", frozenset({"Completed"}), frozenset({"Failed", "Stopped"}), "FailureReason")
COMPONENT_STATUS = Status("InferenceComponentStatus", frozenset({"InService"}), frozenset({"Failed"}), "FailureReason")

_BATCH_PAYLOAD_MB = 6
"""SageMaker's own default, where a container names none."""
_BATCH_TIMEOUT_S = 3600


def describe_endpoint(request: EndpointRequest) -> Deployment:
    """Raises DeployError for a combination that SageMaker refuses."""
    check(request)
    check_placement(request.hosting, request.components)
    model = _model_resource(request.name, request.container)
    if request.batch is not None:
        return Deployment(request.name, (model, _job_resource(request, request.batch, model.name)))
    config = _config_resource(request, model.name)
    alarms = alarm_resources(request)
    endpoint = _endpoint_resource(request, config.name, alarms)
    component = (_component_resource(request, request.components, model.name, alarms),) if request.components else ()
    count = (_count_resource(request),) if request.components is None and request.scaling is None else ()
    return Deployment(request.name, (model, config, *alarms, endpoint, *count, *component, *scaling_resources(request)))


def _model_resource(name: str, container: Container) -> Resource:
    """The model; its name tells its contents."""
    primary: dict[str, Any] = {"Image": container.image_uri, "Environment": dict(container.environment)}
    if container.is_archive:
        primary["ModelDataUrl"] = container.model_uri
    else:
        source = {"S3Uri": container.model_uri, "S3DataType": "S3Prefix", "CompressionType": "None"}
        primary["ModelDataSource"] = {"S3DataSource": source}
    contents = {"PrimaryContainer": primary, "ExecutionRoleArn": container.role_arn}
    versioned_name = versioned(name, contents)
    tags = tag_list(name, **({UPLOADED_TAG: container.model_uri} if container.was_uploaded else {}))
    return Resource(
        "model",
        versioned_name,
        find=Lookup(Call("sagemaker", "DescribeModel", {"ModelName": versioned_name})),
        create=Call("sagemaker", "CreateModel", {"ModelName": versioned_name, **contents, "Tags": tags}),
    )


def _config_resource(request: EndpointRequest, model_name: str) -> Resource:
    contents: dict[str, Any] = {"ProductionVariants": [_variant(request, model_name)]}
    if request.components is not None:
        contents["ExecutionRoleArn"] = request.container.role_arn
    if request.async_output is not None:
        contents["AsyncInferenceConfig"] = {"OutputConfig": {"S3OutputPath": request.async_output}}
        if request.async_concurrency is not None:
            contents["AsyncInferenceConfig"]["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": request.async_concurrency}
    name = versioned(request.name, contents)
    return Resource(
        "endpoint-config",
        name,
        find=Lookup(Call("sagemaker", "DescribeEndpointConfig", {"EndpointConfigName": name})),
        create=Call("sagemaker", "CreateEndpointConfig", {"EndpointConfigName": name, **contents, "Tags": tag_list(request.name)}),
    )


def _variant(request: EndpointRequest, model_name: str) -> dict[str, Any]:
    hosting = request.hosting
    optional = {
        "InferenceAmiVersion": hosting.settled_ami_version(is_batch=False),
        "VolumeSizeInGB": hosting.volume_gb,
    }
    variant: dict[str, Any] = {
        "VariantName": VARIANT,
        "InstanceType": hosting.instance_type,
        "InitialInstanceCount": max(1, hosting.min_instances),
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    }
    if request.components is None:
        # With components these belong to each component.
        optional |= {
            "ContainerStartupHealthCheckTimeoutInSeconds": hosting.startup_timeout_s,
            "ModelDataDownloadTimeoutInSeconds": hosting.download_timeout_s,
        }
        variant |= {"ModelName": model_name, "InitialVariantWeight": 1.0}
    else:
        variant["ManagedInstanceScaling"] = {
            "Status": "ENABLED",
            "MinInstanceCount": hosting.min_instances,
            "MaxInstanceCount": hosting.max_instances,
        }
    return variant | {name: value for name, value in optional.items() if value is not None}


def _endpoint_resource(request: EndpointRequest, config_name: str, alarms: tuple[Resource, ...]) -> Resource:
    key = {"EndpointName": request.name}
    update: dict[str, Any] = {**key, "EndpointConfigName": config_name}
    is_scaled = request.scaling is not None and request.components is None
    if request.components is None:
        # What scaling has made of the number of instances outlives the update.
        update |= {"RetainAllVariantProperties": is_scaled, "DeploymentConfig": blue_green(request, alarms)}
    return Resource(
        "endpoint",
        request.name,
        find=Lookup(Call("sagemaker", "DescribeEndpoint", key)),
        create=Call("sagemaker", "CreateEndpoint", {**key, "EndpointConfigName": config_name, "Tags": tag_list(request.name)}),
        expected={"EndpointConfigName": config_name},
        # SageMaker scales nothing while it updates, and refuses another instance type for what is registered ("Update endpoints that use
        # auto scaling" of its guide); the target is registered anew afterwards.
        before_update=deregister(request.name, is_component=False) if is_scaled else None,
        update=Call("sagemaker", "UpdateEndpoint", update),
        remove=Call("sagemaker", "DeleteEndpoint", key),
        status=ENDPOINT_STATUS,
    )


def _count_resource(request: EndpointRequest) -> Resource:
    """The instances of what does not scale: as many as scaling left, where it is no longer asked for."""
    count = {"VariantName": VARIANT, "DesiredInstanceCount": request.hosting.min_instances}
    key = {"EndpointName": request.name}
    return Resource(
        "instance-count",
        request.name,
        find=Lookup(Call("sagemaker", "DescribeEndpoint", key), "ProductionVariants"),
        expected=count,
        update=Call("sagemaker", "UpdateEndpointWeightsAndCapacities", {**key, "DesiredWeightsAndCapacities": [count]}),
    )


def _component_resource(request: EndpointRequest, components: Components, model_name: str, alarms: tuple[Resource, ...]) -> Resource:
    key = {"InferenceComponentName": request.name}
    specification = _specification(request.hosting, components, model_name)
    create = {
        **key,
        "EndpointName": request.name,
        "VariantName": VARIANT,
        "Specification": specification,
        # A first copy shows that the model starts; where none need run, scaling takes it away again.
        "RuntimeConfig": {"CopyCount": max(1, components.min_copies)},
        "Tags": tag_list(request.name),
    }
    expected: dict[str, Any] = {"Specification": specification}
    update = {**key, "Specification": specification, "DeploymentConfig": rolling(request, alarms)}
    if request.scaling is None:
        # Nobody else changes the number of copies.
        expected["RuntimeConfig"] = {"DesiredCopyCount": components.min_copies}
        update["RuntimeConfig"] = {"CopyCount": components.min_copies}
    return Resource(
        "inference-component",
        request.name,
        find=Lookup(Call("sagemaker", "DescribeInferenceComponent", key)),
        create=Call("sagemaker", "CreateInferenceComponent", create),
        expected=expected,
        update=Call("sagemaker", "UpdateInferenceComponent", update),
        remove=Call("sagemaker", "DeleteInferenceComponent", key),
        status=COMPONENT_STATUS,
    )


def _specification(hosting: Hosting, components: Components, model_name: str) -> dict[str, Any]:
    """Of a component: the model, what a copy takes, and how long it may take to start."""
    needs = {"NumberOfAcceleratorDevicesRequired": float(components.accelerators), "MinMemoryRequiredInMb": components.memory_mb}
    timeouts = {
        "ModelDataDownloadTimeoutInSeconds": hosting.download_timeout_s,
        "ContainerStartupHealthCheckTimeoutInSeconds": hosting.startup_timeout_s,
    }
    told = {name: value for name, value in timeouts.items() if value is not None}
    return {"ModelName": model_name, "ComputeResourceRequirements": needs} | ({"StartupParameters": told} if told else {})


def _job_resource(request: EndpointRequest, batch: Batch, model_name: str) -> Resource:
    source = {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": batch.source}}, "ContentType": "application/jsonlines"}
    resources: dict[str, Any] = {"InstanceType": request.hosting.instance_type, "InstanceCount": max(1, request.hosting.min_instances)}
    if (ami_version := request.hosting.settled_ami_version(is_batch=True)) is not None:
        resources["TransformAmiVersion"] = ami_version
    contents: dict[str, Any] = {
        "ModelName": model_name,
        # A line is a request: many of them in one body are what the container's /invocations takes as a batch.
        "BatchStrategy": "MultiRecord",
        # The container would take more at once; these have to be answered within the longest time that SageMaker waits.
        "MaxPayloadInMB": _BATCH_PAYLOAD_MB,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": _BATCH_TIMEOUT_S},
        "TransformInput": {**source, "SplitType": "Line"},
        "TransformOutput": {"S3OutputPath": batch.output, "Accept": "application/jsonlines", "AssembleWith": "Line"},
        "TransformResources": resources,
    }
    name = versioned(request.name, contents)
    key = {"TransformJobName": name}
    return Resource(
        "transform-job",
        name,
        find=Lookup(Call("sagemaker", "DescribeTransformJob", key)),
        create=Call("sagemaker", "CreateTransformJob", {**key, **contents, "Tags": tag_list(request.name)}),
        status=JOB_STATUS,
    )
