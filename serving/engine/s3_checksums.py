"""Whether a file is what S3 says it has: by the object's SHA-256 or CRC-32, else by its ETag where that is an MD5.

A checksum of an object uploaded in parts is the checksum of its parts' checksums. What cannot be told is no difference: an ETag under KMS
encryption, a checksum of a kind that Python has not, parts of unequal sizes. Sizes are compared by the caller.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

_CHUNK_BYTES = 2**20


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _md5() -> _Hash:
    return hashlib.md5(usedforsecurity=False)


def differs(file: Path, head: Mapping[str, Any], part_bytes: int) -> str | None:
    """The kind of checksum by which `file` is not the object of which `head` (a HEAD with checksums) tells; None if it is.

    `part_bytes`: the size of the parts that it was uploaded in, which is its own size if it was uploaded whole.
    """
    etag = str(head["ETag"]).strip('"')
    has_parts = "-" in etag
    for kind, field, make in (("SHA-256", "ChecksumSHA256", hashlib.sha256), ("CRC-32", "ChecksumCRC32", _Crc32)):
        told = head.get(field)
        if told is None:
            continue
        value, _, num_parts = str(told).partition("-")
        if has_parts and not num_parts and head.get("ChecksumType") != "FULL_OBJECT":
            continue  # of the parts or of the whole, S3's imitators do not say
        found = _digest(file, make, part_bytes if num_parts else None, num_parts)
        return kind if found is not None and base64.b64encode(found).decode() != value else None
    if head.get("ServerSideEncryption") in ("aws:kms", "aws:kms:dsse") or "SSECustomerAlgorithm" in head:
        return None
    value, _, num_parts = etag.partition("-")
    found = _digest(file, _md5, part_bytes if num_parts else None, num_parts)
    return "ETag" if found is not None and len(value) == 32 and found.hex() != value else None


def _digest(file: Path, make: Callable[[], _Hash], part_bytes: int | None, num_parts: str) -> bytes | None:
    """Of the file, or of its parts' digests; None if there are not as many parts."""
    size_bytes = file.stat().st_size
    if part_bytes is None:
        with file.open("rb") as opened:
            return _read(opened, make(), size_bytes)
    if not num_parts.isdecimal() or part_bytes < 1 or -(-size_bytes // part_bytes) != int(num_parts):
        return None
    whole = make()
    with file.open("rb") as opened:
        for _ in range(int(num_parts)):
            whole.update(_read(opened, make(), part_bytes))
    return whole.digest()


def _read(opened: Any, digest: _Hash, size_bytes: int) -> bytes:
    while size_bytes and (chunk := opened.read(min(_CHUNK_BYTES, size_bytes))):
        digest.update(chunk)
        size_bytes -= len(chunk)
    return digest.digest()
