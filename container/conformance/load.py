"""Many streams at once, read with as little work as possible: what is timed beside them is the server, not this process."""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from container.conformance.client import STREAM_LIMIT_S, Client, to_bytes


@dataclass(frozen=True)
class End:
    """How one request ended. `status` is None where the connection broke before an answer."""

    status: int | None
    retry_after: str | None = None
    is_whole: bool = False
    error: str = ""


class Load(threading.Thread):
    """`num_requests` streams, all opened at once, on a thread."""

    def __init__(self, client: Client, num_requests: int, body: Mapping[str, Any]) -> None:
        super().__init__(daemon=True)
        self._client, self._num_requests, self._body = client, num_requests, to_bytes({**body, "stream": True})
        self.num_started = 0
        """Streams of which the first bytes have come."""
        self.ends: list[End] = []
        self.start()

    def run(self) -> None:
        """Read all of them to their ends."""
        asyncio.run(self._all())

    async def _all(self) -> None:
        await asyncio.gather(*(self._one() for _ in range(self._num_requests)))

    async def _one(self) -> None:
        try:
            async with asyncio.timeout(STREAM_LIMIT_S):
                self.ends.append(await self._read())
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self.ends.append(End(None, error=repr(error)))

    async def _read(self) -> End:
        host, port = self._client.address
        reader, writer = await asyncio.open_connection(host, port)
        try:
            headers = self._client.headers() | {"Host": f"{host}:{port}", "Content-Length": str(len(self._body)), "Connection": "close"}
            writer.write(b"POST /invocations HTTP/1.1\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items()))
            writer.write(b"\r\n" + self._body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split()[1])
            answered = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            tail, has_error = b"", False
            while part := await reader.read(65536):
                if not tail:
                    self.num_started += status == 200
                has_error = has_error or b'"error"' in part
                tail = (tail + part)[-200:]
            return End(status, answered.get("retry-after"), status == 200 and b"data: [DONE]" in tail and not has_error)
        finally:
            writer.close()
