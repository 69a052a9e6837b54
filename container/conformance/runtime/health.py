"""What the container's /ping said last. Asked in the background, as SageMaker does, never by a call."""

import asyncio
from http import HTTPStatus

import httpx

from container.conformance.runtime.errors import PlatformError, model_not_ready, service_unavailable


class Health:
    """The state of one container. Before the first ping it counts as not ready."""

    def __init__(self, client: httpx.AsyncClient, target: str, timeout_s: float) -> None:
        self._client = client
        self._url = f"{target}/ping"
        self._timeout_s = timeout_s
        self._refusal: PlatformError | None = model_not_ready("/ping has not been asked yet")

    @property
    def refusal(self) -> PlatformError | None:
        """Why calls are refused now; `None` if they are not."""
        return self._refusal

    async def ping(self) -> None:
        """Ask once and remember."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.send(httpx.Request("GET", self._url))
        except httpx.ConnectError:
            self._refusal = service_unavailable("nothing listens at the container's address")
        except TimeoutError:
            self._refusal = model_not_ready(f"/ping did not answer within {self._timeout_s:g} s")
        except httpx.HTTPError:
            self._refusal = model_not_ready("/ping broke off")
        else:
            is_ready = answer.status_code == HTTPStatus.OK
            self._refusal = None if is_ready else model_not_ready(f"/ping answered {answer.status_code}")

    async def watch(self, interval_s: float) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.ping()
