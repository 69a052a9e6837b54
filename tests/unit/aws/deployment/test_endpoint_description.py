"""What an endpoint is made of, and that AWS's own models of its services accept every call."""

import botocore.loaders
import botocore.model
import botocore.validate
import pytest

from serving.aws.deployment.description import Reference, is_version_of
from serving.aws.deployment.endpoint_description import describe_endpoint
from serving.errors import DeployError
from tests.unit.aws.deployment.requests import ASYNC, BATCH, COMPONENTS, KINDS, PLAIN, SCALED, TO_ZERO, TOKENS, endpoint, request


def parameters(deployment, operation, which="create"):
    calls = [getattr(resource, which) for resource in deployment.resources]
    return [call.parameters for call in calls if call is not None and call.operation == operation]


def one(deployment, operation, which="create"):
    (found,) = parameters(deployment, operation, which)
    return found


def calls_of(deployment):
    for resource in deployment.resources:
        yield resource.find.call
        yield from (call for call in (resource.create, resource.before_update, resource.update, resource.remove) if call is not None)


def plain_values(value):
    if isinstance(value, Reference):
        return "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:1"
    if isinstance(value, dict):
        return {name: plain_values(item) for name, item in value.items()}
    return [plain_values(item) for item in value] if isinstance(value, list) else value


LOADER = botocore.loaders.create_loader()


@pytest.mark.parametrize("words", [*KINDS.values(), (*PLAIN, *BATCH)], ids=[*KINDS, "batch"])
def test_every_call_is_one_that_the_service_accepts(words):
    for call in calls_of(describe_endpoint(request(*words))):
        service = botocore.model.ServiceModel(LOADER.load_service_model(call.service, "service-2"))
        shape = service.operation_model(call.operation).input_shape
        report = botocore.validate.ParamValidator().validate(plain_values(dict(call.parameters)), shape)
        assert not report.has_errors(), report.generate_report()


def test_files_in_s3_are_taken_as_they_are():
    source = one(endpoint(), "CreateModel")["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert source == {"S3Uri": "s3://bucket/llama/", "S3DataType": "S3Prefix", "CompressionType": "None"}


def test_variables_reach_the_container():
    container = one(endpoint("--env", "TOKENPORT_MAX_MODEL_LEN=4096", "--env", "TOKENPORT_X=a=b"), "CreateModel")["PrimaryContainer"]
    assert container["Environment"] == {"TOKENPORT_MAX_MODEL_LEN": "4096", "TOKENPORT_X": "a=b"}


def test_what_is_told_of_the_instance_is_in_the_variant_and_what_is_not_is_left_to_aws():
    (variant,) = one(endpoint("--startup-timeout-s", "900", "--volume-gb", "200"), "CreateEndpointConfig")["ProductionVariants"]
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 900
    assert variant["VolumeSizeInGB"] == 200
    assert "ModelDataDownloadTimeoutInSeconds" not in variant
    assert variant["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"


def test_an_instance_without_gpu_has_no_ami_of_gpus():
    (variant,) = one(endpoint("--instance-type", "ml.m7i.4xlarge"), "CreateEndpointConfig")["ProductionVariants"]
    assert "InferenceAmiVersion" not in variant


def test_other_contents_are_another_name_and_the_same_the_same():
    first, same, other = (one(endpoint(*words), "CreateModel")["ModelName"] for words in ((), (), ("--env", "A=1")))
    assert first == same != other
    assert is_version_of("chat", first)
    assert is_version_of("chat", other)


def test_all_is_tagged_with_the_deployment():
    deployment = describe_endpoint(request(*KINDS["to zero"]))
    for resource in deployment.resources:
        if resource.kind not in ("scaling-policy", "instance-count"):
            tags = resource.create.parameters["Tags"]
            assert "chat" in (tags.values() if isinstance(tags, dict) else [tag["Value"] for tag in tags])


def test_an_update_is_blue_green_with_the_alarms_that_undo_it():
    deployment = endpoint("--traffic", "canary", "--traffic-percent", "20", "--traffic-wait-s", "60", "--rollback-latency-ms", "4000")
    config = one(deployment, "UpdateEndpoint", "update")["DeploymentConfig"]
    routing = config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY"
    assert routing["CanarySize"] == {"Type": "CAPACITY_PERCENT", "Value": 20}
    assert routing["WaitIntervalInSeconds"] == 60
    assert [alarm["AlarmName"] for alarm in config["AutoRollbackConfiguration"]["Alarms"]] == ["chat-5xx", "chat-latency"]
    # ModelLatency is in microseconds.
    assert {alarm["MetricName"]: alarm["Threshold"] for alarm in parameters(deployment, "PutMetricAlarm")}["ModelLatency"] == 4_000_000


def test_an_update_of_what_scales_keeps_the_instances_and_rests_the_scaling():
    deployment = endpoint(*SCALED)
    assert one(deployment, "UpdateEndpoint", "update")["RetainAllVariantProperties"] is True
    assert one(deployment, "DeregisterScalableTarget", "before_update")["ResourceId"] == "endpoint/chat/variant/AllTraffic"


def test_scaling_tracks_requests_at_once_and_outstanding_tokens():
    policies = parameters(endpoint(*SCALED, *TOKENS), "PutScalingPolicy")
    requests, tokens = (policy["TargetTrackingScalingPolicyConfiguration"] for policy in policies)
    predefined = {"PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"}
    assert requests == {"TargetValue": 5.0, "PredefinedMetricSpecification": predefined}
    assert tokens["TargetValue"] == 20000.0
    assert tokens["CustomizedMetricSpecification"] == {
        "Namespace": "Tokenport",
        "MetricName": "OutstandingTokens",
        "Dimensions": [{"Name": "EndpointName", "Value": "chat"}],
        "Statistic": "Average",
    }


def test_the_server_reports_its_tokens_where_the_policy_looks_for_them():
    container = one(endpoint("--max-instances", "2", *TOKENS), "CreateModel")["PrimaryContainer"]
    assert container["Environment"] == {"TOKENPORT_EMF_NAMESPACE": "Tokenport", "TOKENPORT_EMF_ENDPOINT_NAME": "chat"}


def test_components_bring_their_own_needs_and_start_from_zero_by_an_alarm():
    deployment = endpoint(*COMPONENTS, *TO_ZERO)
    (variant,) = one(deployment, "CreateEndpointConfig")["ProductionVariants"]
    assert variant["ManagedInstanceScaling"] == {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 4}
    assert "ModelName" not in variant
    component = one(deployment, "CreateInferenceComponent")
    needs = {"NumberOfAcceleratorDevicesRequired": 1.0, "MinMemoryRequiredInMb": 8000}
    assert component["Specification"]["ComputeResourceRequirements"] == needs
    target = one(deployment, "RegisterScalableTarget")
    assert (target["ResourceId"], target["MinCapacity"], target["MaxCapacity"]) == ("inference-component/chat", 0, 4)
    wake = parameters(deployment, "PutMetricAlarm")[-1]
    assert wake["MetricName"] == "NoCapacityInvocationFailures"
    assert wake["AlarmActions"] == [Reference("scaling-policy chat-wake", "PolicyARN")]


@pytest.mark.parametrize(
    "words",
    [
        ("--instance-type", "ml.g5.12xlarge", "--min-copies", "4", "--max-copies", "4"),
        ("--instance-type", "ml.g99.xlarge", "--accelerators", "64"),
    ],
)
def test_copies_that_have_room_or_whose_instance_is_not_known_are_sent(words):
    assert one(endpoint(*COMPONENTS, *words), "CreateInferenceComponent")


def test_an_asynchronous_endpoint_scales_on_its_backlog():
    deployment = endpoint(*ASYNC, "--target-concurrency", "3")
    config = one(deployment, "CreateEndpointConfig")["AsyncInferenceConfig"]
    assert config == {
        "OutputConfig": {"S3OutputPath": "s3://bucket/answers/"},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
    }
    tracked = parameters(deployment, "PutScalingPolicy")[0]["TargetTrackingScalingPolicyConfiguration"]
    assert tracked["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert parameters(deployment, "PutMetricAlarm")[-1]["MetricName"] == "HasBacklogWithoutCapacity"


def test_a_batch_is_a_job_over_lines_and_no_endpoint():
    deployment = endpoint(*BATCH)
    assert [resource.kind for resource in deployment.resources] == ["model", "transform-job"]
    job = one(deployment, "CreateTransformJob")
    assert job["TransformInput"]["SplitType"] == "Line"
    assert one(deployment, "CreateModel")["PrimaryContainer"]["ModelDataUrl"] == "s3://bucket/llama.tar.gz"


def test_a_job_runs_on_a_host_of_its_own_kind_and_waits_as_long_as_sagemaker_can():
    job = one(endpoint(*BATCH), "CreateTransformJob")
    assert job["TransformResources"]["TransformAmiVersion"] == "al2-ami-sagemaker-batch-gpu-535"
    assert job["ModelClientConfig"] == {"InvocationsTimeoutInSeconds": 3600}
    job = one(endpoint(*BATCH, "--instance-type", "ml.m7i.4xlarge"), "CreateTransformJob")
    assert "TransformAmiVersion" not in job["TransformResources"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*SCALED, "--target-concurrency", "65"), "max_num_seqs 64"),
        ((*SCALED, "--env", "TOKENPORT_DATA_PARALLEL_SIZE=2", "--target-concurrency", "129"), "max_num_seqs 128"),
        (("--max-instances", "2"), "--target-concurrency"),
        (("--target-concurrency", "2"), "--max-instances"),
        (("--max-instances", "2", "--target-tokens", "5"), "--metrics-namespace"),
        (("--metrics-namespace", "Own"), "--target-tokens"),
        (("--min-instances", "0", "--max-instances", "1", "--target-concurrency", "2"), "scales to zero"),
        (("--accelerators", "1"), "--components"),
        (("--min-copies", "0"), "--components"),
        (("--components", "--accelerators", "1"), "--memory-mb"),
        ((*COMPONENTS, "--min-copies", "0", "--target-concurrency", "2"), "--min-instances 0"),
        ((*COMPONENTS, "--async", "s3://bucket/a"), "exclude each other"),
        ((*COMPONENTS, "--traffic", "canary"), "copy by copy"),
        (("--instance-type", "ml.inf2.xlarge"), "Tokenport does not run there: it has AWS Neuron cores"),
        ((*COMPONENTS, "--accelerators", "2"), "--accelerators 2: ml.g4dn.2xlarge has 1"),
        ((*COMPONENTS, "--memory-mb", "40000"), "--memory-mb 40000: ml.g4dn.2xlarge has 32768"),
        ((*COMPONENTS, "--max-copies", "3", "--target-concurrency", "2"), "--max-instances 1 is too few"),
        (("--async-concurrency", "2"), "--async"),
        (("--traffic-percent", "20"), "--traffic canary"),
        (("--traffic", "linear", "--traffic-percent", "5"), "10 to 50"),
        (("--traffic", "linear", "--traffic-wait-s", "3600"), "--traffic-wait-s 3600"),
        (("--batch", "s3://bucket/in"), "--batch-output"),
        (("--batch", "s3://bucket/in", "--batch-output", "s3://bucket/out"), ".tar.gz"),
        ((*BATCH, "--target-concurrency", "3"), "no endpoint"),
        ((*BATCH, "--volume-gb", "100"), "--volume-gb 100 has no effect"),
        ((*BATCH, "--rollback-errors", "1"), "--rollback-errors 1 has no effect"),
        ((*COMPONENTS, "--termination-wait-s", "9"), "copy by copy"),
        (("--env", "A=1", "--env", "A=2"), "twice"),
        (("--max-instances", "2", *TOKENS, "--env", "TOKENPORT_EMF_NAMESPACE=Own"), "set by --metrics-namespace"),
        (("--env", f"A={'x' * 1025}"), "1024 bytes"),
        ([word for number in range(40) for word in ("--env", f"A{number}={'x' * 1000}")], "SageMaker takes 32768"),
        (("--image-uri", "docker.io/team/tokenport:1"), "no image in ECR"),
        (("--model", "/nowhere"), "--upload"),
        (("--upload", "s3://bucket/x"), "in S3 already"),
    ],
)
def test_what_would_have_no_effect_or_be_refused_stops_with_the_option_at_fault(words, told):
    with pytest.raises(DeployError) as raised:
        endpoint(*words)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
