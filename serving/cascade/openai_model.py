"""A server that speaks OpenAI's protocol as a model elsewhere: asked once, over connections that are closed when an answer is left."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from serving.engine.interface import Chunks, Kind
from serving.remote_chunks import RemoteChunks, checked_whole, needs_token_ids, openai_chunks
from serving.remote_errors import connection_error, deadline_error, status_error

_CONNECT_TIMEOUT_S = 10.0
_PATHS: Mapping[Kind, str] = {"chat": "chat/completions", "completion": "completions"}


class OpenAIModel:
    """A `RemoteModel`. `who` begins the sentences of its errors; `url` up to and with `/v1`; `model` is its name there; `ca_file` holds the
    certificates to trust instead of the system's. `paths`: where below `url` each kind is asked for.

    Raises:
        OSError: `ca_file` cannot be read, or has no certificates.
    """

    def __init__(
        self,
        who: str,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        ca_file: str | None = None,
        paths: Mapping[Kind, str] = _PATHS,
    ) -> None:
        self._who = who
        self._url = url.rstrip("/")
        self._model = model
        self._paths = paths
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._http: aiohttp.ClientSession | None = None

    @property
    def kinds(self) -> frozenset[Kind]:
        """See `RemoteModel`."""
        return frozenset(self._paths)

    def cannot_honour(self, kind: Kind, body: Mapping[str, Any]) -> str | None:
        """See `RemoteModel`. The body goes there as it is; the server says itself what it has nothing for."""
        return None

    async def generate(self, kind: Kind, body: Mapping[str, Any], request_id: str, *, deadline_s: float) -> bytes | Chunks:
        """See `RemoteModel`."""
        ends_at = asyncio.get_running_loop().time() + deadline_s
        if body.get("stream") is True:
            texts = openai_chunks(self._who, self._reads(kind, body, request_id), needs_token_ids=needs_token_ids(body))
            return await RemoteChunks(self._who, texts, ends_at).hold_first()
        try:
            async with asyncio.timeout_at(ends_at), self._call(kind, body, request_id) as response:
                return checked_whole(self._who, await response.read(), needs_token_ids=needs_token_ids(body))
        except TimeoutError as error:
            raise deadline_error(self._who) from error

    async def close(self) -> None:
        """See `RemoteModel`."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _reads(self, kind: Kind, body: Mapping[str, Any], request_id: str) -> AsyncGenerator[bytes, None]:
        async with self._call(kind, body, request_id) as response:
            async for read in response.content.iter_any():
                yield read

    @asynccontextmanager
    async def _call(self, kind: Kind, body: Mapping[str, Any], request_id: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send once. The connection is closed with the context, unless all was read."""
        try:
            async with self._session().post(
                f"{self._url}/{self._paths[kind]}",
                data=json.dumps({**body, "model": self._model}).encode(),
                headers={**self._headers, "Content-Type": "application/json", "X-Request-Id": request_id},
                # A key must not follow a redirect to somewhere else.
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise status_error(self._who, response.status, await response.read(), response.headers)
                yield response
        except aiohttp.ClientError as error:
            raise connection_error(self._who, error) from error

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            # How many may run at once is decided where they are admitted.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)
            self._http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._http
