"""`GET /execution-parameters`: what batch transform may send at once, where its job does not say."""

from fastapi import Request
from fastapi.responses import JSONResponse

_PLATFORM_MB = 100
"""Concurrent transforms times payload may be no more: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html"""


async def execution_parameters(request: Request) -> JSONResponse:
    """As many payloads of the largest size as the platform sends together."""
    return JSONResponse(limits(request.app.state.max_body_bytes))


def limits(max_body_bytes: int) -> dict[str, int | str]:
    """In SageMaker's words. Of the payload at least 1, since 0 would mean that there is no limit."""
    payload_mb = min(max(1, max_body_bytes // 2**20), _PLATFORM_MB)
    return {"MaxConcurrentTransforms": _PLATFORM_MB // payload_mb, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": payload_mb}
