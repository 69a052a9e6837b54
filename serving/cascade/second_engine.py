"""A second `tokenport serve` on this machine, as a child of this process: started, waited for, noticed when it dies, stopped.

It has a loopback port, a key and settings of its own, and none of this server's. Its log goes where this server's log goes.
"""

import asyncio
import ctypes
import json
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from serving.cascade.config import VllmTier
from serving.cascade.openai_model import OpenAIModel
from serving.engine.interface import Report
from serving.engine_arguments import flag_of
from serving.errors import EngineDead, SettingsError, StartError
from serving.settings import Settings, load_settings
from serving.settings_names import PROTECTED

_HOST = "127.0.0.1"
_LOOK_S = 0.25
_PING_TIMEOUT_S = 5.0
_STOP_DEADLINE_S = 3.0
"""SageMaker kills 30 s after SIGTERM, of which draining takes 25: nothing runs there any more."""
_PR_SET_PDEATHSIG = 1
"""Linux: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html"""
_SERVERS = ("TOKENPORT_", "SM_VLLM_", "OPTION_", "SAGEMAKER_")
_SERVERS_TOO = frozenset(("HF_MODEL_ID", "VLLM_API_KEY", "SM_NUM_GPUS"))
_NOT_ITS_OWN = ("model", "host", "port", "api_key", "config", "cascade")
_LIBC = ctypes.CDLL(None)


class SecondEngine:
    """One tier's process. `environ`: this server's, as it was when it started.

    Raises:
        SettingsError: an argument of the tier is unknown or wrong.
    """

    def __init__(self, tier: VllmTier, settings: Settings, environ: Mapping[str, str]) -> None:
        self.name = tier.name
        self._tier = tier
        self._port = _free_port()
        self._key = secrets.token_urlsafe()
        self._words = _words(tier)
        own = {"HOST": _HOST, "PORT": str(self._port), "API_KEY": self._key}
        self._environ = inherited(environ, settings) | {f"TOKENPORT_{name}": value for name, value in own.items()}
        self._process: asyncio.subprocess.Process | None = None

    def model(self) -> OpenAIModel:
        """How it is asked. The empty name is that of its only model."""
        return OpenAIModel(f"the tier {self.name}", f"http://{_HOST}:{self._port}/v1", "", api_key=self._key)

    async def start(self, report: Report) -> None:
        """Come up until a token has been produced.

        Raises:
            StartError: it ended, or is not there in time.
        """
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "serving", "serve", *self._words),
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            # Only this process stops it: a Ctrl-C in the terminal is for the server, which drains first. It stays in this session: Linux
            # shares processors out by session first (sched_autogroup), and this server would be kept waiting for seconds.
            process_group=0,
            preexec_fn=_end_with_parent,
        )
        ended = asyncio.ensure_future(self._process.wait())
        ready = asyncio.ensure_future(self._until_ready(report))
        try:
            await asyncio.wait((ended, ready), timeout=self._tier.start_deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise StartError(f"the tier {self.name} did not start ({_told(ended.result())}): the log says why")
            if not ready.done():
                raise StartError(f"the tier {self.name} was not ready within {self._tier.start_deadline_s:g} s (start_deadline_s)")
            ready.result()
        finally:
            ended.cancel()
            ready.cancel()

    async def wait_dead(self) -> str:
        """Return when it has died, with the reason in one line."""
        if self._process is None:
            raise EngineDead(f"the tier {self.name} has not been started")
        return f"the tier {self.name} died ({_told(await self._process.wait())})"

    async def stop(self) -> None:
        """End it. Harmless if never started."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_DEADLINE_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _until_ready(self, report: Report) -> None:
        timeout = aiohttp.ClientTimeout(total=_PING_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                try:
                    async with http.get(f"http://{_HOST}:{self._port}/ping") as answer:
                        if answer.status == 200:
                            return
                        report(f"the tier {self.name}: {(await answer.json()).get('phase')}", None)
                except (aiohttp.ClientError, TimeoutError):
                    report(f"the tier {self.name}: starting", None)
                await asyncio.sleep(_LOOK_S)


def inherited(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """What of this server's variables and settings is the child's too: not what says how this server runs, but what an untrusted model
    may not do holds for both. Deadlines are kept here, and the model's own code runs around this server's answers only."""
    own = {
        "CACHE_DIR": str(settings.cache_dir),
        "LOG_LEVEL": settings.log_level,
        "DEADLINE_S": "0",
        "STREAM_DEADLINE_S": "0",
        "CUSTOM_CODE": "false",
    }
    kept = {name: value for name, value in environ.items() if name in PROTECTED or not (name.startswith(_SERVERS) or name in _SERVERS_TOO)}
    return kept | {f"TOKENPORT_{name}": value for name, value in own.items()}


def _words(tier: VllmTier) -> Sequence[str]:
    """The words after `serve`."""
    for name in _NOT_ITS_OWN:
        if name in tier.arguments:
            raise SettingsError(f"cascade: the tier {tier.name}: arguments.{name}: the cascade says that itself; leave it out")
    words = [tier.model, *(f"{flag_of(name)}={_text(value)}" for name, value in tier.arguments.items())]
    try:
        load_settings(words, {})
    except SettingsError as error:
        raise SettingsError(f"cascade: the tier {tier.name}: arguments: {error}") from error
    return words


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _told(status: int) -> str:
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


def _end_with_parent() -> None:
    """In the child: if this server is killed, nothing else would end it, and it would hold its memory for ever."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
