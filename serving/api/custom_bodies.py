"""Bodies and answers in the types that SageMaker's toolkit decodes and encodes, for functions that a model does not bring itself."""

import io
from typing import Any

import numpy
from fastapi import Request
from fastapi.responses import Response
from sagemaker_inference import content_types, decoder, encoder

from serving.api.custom_engine import UserCodeError
from serving.api.schemas import content_type_of
from serving.errors import CustomCodeFailure, InvalidRequest, NotAcceptable


async def body_of(request: Request) -> bytes | str:
    """As the toolkit gives it: text where the type is text by its book. Raises InvalidRequest."""
    raw = await request.body()
    if content_type_of(request) not in content_types.UTF8_TYPES:
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error


def array_of(data: bytes | str, content_type: str) -> Any:
    """Numbers from CSV, NPY or NPZ. Raises InvalidRequest."""
    try:
        if content_type == content_types.NPY:
            # The toolkit's decoder would unpickle what a client sends.
            return numpy.load(io.BytesIO(data if isinstance(data, bytes) else data.encode()), allow_pickle=False)
        return decoder.decode(data, content_type)
    except Exception as error:
        raise InvalidRequest(f"the body is no {content_type}: {type(error).__name__}") from error


def encoded(prediction: Any, accept: str) -> Response:
    """In the first type of `accept` that the toolkit has. Raises NotAcceptable, or UserCodeError if it cannot be written so."""
    for item in accept.split(","):
        media_type = item.partition(";")[0].strip().lower()
        media_type = content_types.JSON if media_type in (content_types.ANY, "application/*") else media_type
        if media_type in encoder.SUPPORTED_CONTENT_TYPES:
            try:
                return Response(encoder.encode(prediction, media_type), media_type=media_type)
            except Exception as error:
                raise UserCodeError("predict_fn") from error
    known = ", ".join(sorted(encoder.SUPPORTED_CONTENT_TYPES))
    raise NotAcceptable(f"Accept: {accept[:200]!r} is not supported: accept {known}")


def typed(result: Any, accept: str) -> tuple[bytes, str]:
    """What output_fn returned as bytes and their type. Raises CustomCodeFailure for what is no answer."""
    content_type = accept.partition(",")[0].partition(";")[0].strip()
    if isinstance(result, tuple) and len(result) == 2:
        result, content_type = result
    if isinstance(result, dict | list):
        result = encoder.encode(result, content_types.JSON)
    if isinstance(result, str):
        result = result.encode()
    if not isinstance(result, bytes | bytearray):
        raise CustomCodeFailure(
            f"the model's own code returned {type(result).__name__} as the answer: return text, bytes or an object of JSON"
        )
    return bytes(result), str(content_type)
