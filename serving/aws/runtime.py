"""One AWS service that answers requests: botocore finds credentials and endpoint, checks, writes and signs; aiohttp sends.

botocore itself would block a thread for as long as a model takes, could not be told to stop, and its retries would send slow generations
again. So it is stopped at the moment of sending: a request is sent once, and closing it closes its connection.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import aiohttp
import botocore.session
import yarl
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError, ParamValidationError
from botocore.httpsession import get_cert_path

from serving.aws.errors import service_error
from serving.errors import InvalidRequest, StartError, TierFailure
from serving.remote_errors import connection_error

_CONNECT_TIMEOUT_S = 10.0
_UNSIGNED_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add. SageMaker passes `Accept` on to the container."""


class Runtime:
    """`service` is botocore's name of it. `who` begins the sentences of its errors. Without `region` it is the environment's.

    Raises:
        StartError: no region, an unknown profile, an address that is none, or certificates that cannot be read.
    """

    def __init__(self, service: str, who: str, region: str | None, endpoint_url: str | None) -> None:
        self._who = who
        session = botocore.session.get_session()
        try:
            self._client = session.create_client(
                service, region_name=region, endpoint_url=endpoint_url, config=Config(retries={"total_max_attempts": 1})
            )
            # The same certificates that botocore takes.
            self._tls = ssl.create_default_context(cafile=get_cert_path(session.get_config_variable("ca_bundle") or True))
        except NoRegionError as error:
            raise StartError(f"{who} cannot be asked: no AWS region is known; name it, or set AWS_DEFAULT_REGION") from error
        except (BotoCoreError, ValueError, OSError) as error:
            raise StartError(f"{who} cannot be asked: {error}") from error
        self._client.meta.events.register("before-send", _stop_before_sending)
        self._http: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def call(self, operation: str, parameters: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send once. `operation` is the name of botocore's method. The connection is closed with the context, unless all was read.

        Raises:
            TierFailure: not reached, broken off, no credentials, or the service's own error.
            RequestError: the service says that the request is wrong.
        """
        # Credentials may have to be asked for, of a file or of another service.
        request = await asyncio.to_thread(self._signed, operation, parameters)
        try:
            async with self._session().request(
                request.method,
                yarl.URL(request.url, encoded=True),
                headers={name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()},
                data=request.body,
                skip_auto_headers=_UNSIGNED_HEADERS,
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:
                    raise service_error(self._who, response.status, await response.read(), response.headers)
                yield response
        except aiohttp.ClientError as error:
            raise connection_error(self._who, error) from error

    async def close(self) -> None:
        """Close its connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None
        self._client.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            # How many may run at once is decided where they are admitted. The proxies are the environment's, as botocore has them.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)
            self._http = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True)
        return self._http

    def _signed(self, operation: str, parameters: Mapping[str, Any]) -> AWSPreparedRequest:
        try:
            getattr(self._client, operation)(**parameters)
        except _Signed as signed:
            return signed.request
        except ParamValidationError as error:
            raise InvalidRequest(f"{self._who} does not take this request: {' '.join(str(error).split())}") from error
        except (BotoCoreError, ClientError) as error:
            # What another service answered that credentials are asked of is among them: a role that may not be taken, for example.
            raise TierFailure(f"{self._who} cannot be asked: {' '.join(str(error).split())}", reason="refused") from error
        except ValueError as error:
            raise TierFailure(f"{self._who} cannot be asked: {error}: check AWS_ENDPOINT_URL", reason="unreachable") from error
        raise TierFailure(f"{self._who} was answered for by something inside this process", reason="failed")


class _Signed(Exception):
    """No failure: how a request that is ready leaves botocore."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__(request.url)
        self.request = request


def _stop_before_sending(request: AWSPreparedRequest, **_: Any) -> NoReturn:
    raise _Signed(request)
