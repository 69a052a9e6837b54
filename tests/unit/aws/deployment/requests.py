"""Requests of several kinds, from the words that a person would write."""

from serving.aws.deployment.endpoint_description import describe_endpoint
from serving.aws.deployment.endpoint_options import read_options
from serving.aws.deployment.endpoint_request import EndpointRequest

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tokenport:1"
ROLE = "arn:aws:iam::123456789012:role/tokenport-execution"
PLAIN = ("--name", "chat", "--model", "s3://bucket/llama", "--image-uri", IMAGE, "--role", ROLE, "--instance-type", "ml.g4dn.2xlarge")
SCALED = ("--max-instances", "4", "--target-concurrency", "5", "--env", "TOKENPORT_MAX_NUM_SEQS=64")
TOKENS = ("--target-tokens", "20000", "--metrics-namespace", "Tokenport")
COMPONENTS = ("--components", "--accelerators", "1", "--memory-mb", "8000")
TO_ZERO = ("--min-instances", "0", "--max-instances", "4", "--min-copies", "0", "--max-copies", "4", "--target-concurrency", "5")
ASYNC = ("--async", "s3://bucket/answers/", "--async-concurrency", "4", "--min-instances", "0", "--max-instances", "2")
BATCH = ("--model", "s3://bucket/llama.tar.gz", "--batch", "s3://bucket/requests/", "--batch-output", "s3://bucket/answers/")
KINDS = {
    "plain": PLAIN,
    "scaled": (*PLAIN, *SCALED, *TOKENS, "--traffic", "linear", "--traffic-percent", "20", "--rollback-latency-ms", "4000"),
    "components": (*PLAIN, *COMPONENTS, "--max-copies", "4", "--max-instances", "4", *TOKENS, "--startup-timeout-s", "900"),
    "to zero": (*PLAIN, *COMPONENTS, *TO_ZERO, *TOKENS),
    "async": (*PLAIN, *ASYNC, "--target-concurrency", "5", "--volume-gb", "100"),
}


def request(*words: str) -> EndpointRequest:
    return read_options(words).request


def endpoint(*words: str):
    return describe_endpoint(request(*PLAIN, *words))
