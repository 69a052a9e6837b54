"""Writes `application/vnd.amazon.eventstream`: botocore only reads it.

A message is: total length, length of the headers, CRC-32 of these two; the headers; the payload; CRC-32 of all before.
"""

from binascii import crc32
from collections.abc import Mapping
from struct import pack

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7  # the header value type for text
_FRAME_BYTES = 16  # two lengths and two checksums


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message. Readers refuse payloads over 24 MiB and headers over 128 KiB.

    Raises:
        struct.error: a header's name is longer than 255 bytes, or its value than 65,535.
    """
    encoded = b"".join(_encode_header(name.encode(), value.encode()) for name, value in headers.items())
    lengths = pack("!II", _FRAME_BYTES + len(encoded) + len(payload), len(encoded))
    message = lengths + pack("!I", crc32(lengths)) + encoded + payload
    return message + pack("!I", crc32(message))


def _encode_header(name: bytes, value: bytes) -> bytes:
    return pack("!B", len(name)) + name + pack("!BH", _STRING, len(value)) + value


def encode_payload_part(data: bytes) -> bytes:
    """A PayloadPart event."""
    headers = {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
    return encode_message(headers, data)


def encode_exception(exception_type: str, payload: bytes) -> bytes:
    """An exception event, the last of its stream; the payload is JSON."""
    return encode_message({":exception-type": exception_type, ":content-type": "application/json", ":message-type": "exception"}, payload)
