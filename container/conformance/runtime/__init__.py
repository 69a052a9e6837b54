"""A local SageMaker runtime: what stands between a client and a container on SageMaker, on a port of this machine.

`python -m container.conformance runtime --target URL --port N`, then `boto3.client("sagemaker-runtime", endpoint_url=...)` or the
`aws` command with any credentials. It imitates what is documented or has been observed in the field; what is assumed is said where
it is done. It does not verify signatures, and knows no instances, autoscaling, S3 or data capture.
"""
