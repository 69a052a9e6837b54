"""What is tested, and how it is started as SageMaker starts it: a command, an image, or nothing (a URL that already answers)."""

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from container.conformance import confine
from container.conformance.client import Client
from container.conformance.network import PrivateNetwork, has_privilege
from container.conformance.server import Server

DEFAULT_PORT = 8080
_NUM_SAFE_PORTS = 64
_END_LIMIT_S = 10.0
_NO_ROOT = "needs root on Linux, for namespaces of the server's own"
_INHERITED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")
"""All that a process gets of this one's environment; an image gets nothing."""


class Target(Protocol):
    """Something that can be started as often as needed."""

    can_start: bool
    start_limit_s: float
    is_tokenport: bool

    def start(self, environ: Mapping[str, str], *, default_port: bool = False) -> contextlib.AbstractContextManager[Server]:
        """Start it with further variables, on a random port or the default one; it need not be ready yet. Ended with the block."""


@dataclass
class ProcessTarget:
    """A command; `{model}` and `{port}` in it are filled in. As root it runs with a network, /opt/ml/model and file system of its own."""

    command: str
    model: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    is_tokenport: bool = False
    can_start: bool = True
    start_limit_s: float = 480.0

    @contextlib.contextmanager
    def start(self, environ: Mapping[str, str], *, default_port: bool = False) -> Iterator[Server]:
        """Start the command."""
        hidden = {} if has_privilege() else dict.fromkeys(("network", "model", "readonly"), _NO_ROOT)
        if "{port}" in self.command:
            hidden["port"] = "its command line is told the port, not its environment"
        network = PrivateNetwork.new() if has_privilege() else None
        port = DEFAULT_PORT if default_port else _free_port()
        safe_ports = _safe_ports(port)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        told = inherited | _sagemaker_environ(port, safe_ports, default_port=default_port) | dict(self.environ) | dict(environ)
        if self.is_tokenport:
            # As the image does.
            told = {"TOKENPORT_HOST": "0.0.0.0"} | told | ({} if network else {"TOKENPORT_MODEL": str(self.model)})
        folder = confine.MODEL_FOLDER if network else str(self.model)
        words = [word.format(model=folder, port=port) for word in shlex.split(self.command)]
        if network is not None:
            words = [sys.executable, "-I", confine.__file__, str(self.model), *words]
        before = digest(self.model)
        with tempfile.NamedTemporaryFile(prefix="conformance-", suffix=".log") as log:
            process = subprocess.Popen(words, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
            program = _ProcessProgram(process, Path(log.name))
            client = Client(f"http://127.0.0.1:{port}")
            server = Server(client, hidden, program, network, str(self.model), before, safe_ports, is_tokenport=self.is_tokenport)
            try:
                yield server
            finally:
                program.end()


@dataclass
class ImageTarget:
    """An image, run with podman or docker: read-only root, /tmp in memory, no network (as root; else a port of loopback)."""

    tag: str
    model: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    is_tokenport: bool = False
    shm_size: str = "64m"
    can_start: bool = True
    start_limit_s: float = 480.0

    @contextlib.contextmanager
    def start(self, environ: Mapping[str, str], *, default_port: bool = False) -> Iterator[Server]:
        """Run the image with `serve`."""
        engine = _container_engine(self.tag)
        is_root = has_privilege()
        port = DEFAULT_PORT if default_port else _free_port()
        safe_ports = _safe_ports(port)
        told = _sagemaker_environ(port, safe_ports, default_port=default_port) | dict(self.environ) | dict(environ)
        outside = port if is_root else _free_port()
        network = ["--network=none"] if is_root else ["--publish", f"127.0.0.1:{outside}:{port}"]
        words = [engine, "run", "--detach", "--read-only", "--tmpfs", "/tmp", f"--shm-size={self.shm_size}", *network]  # noqa: S108
        words += ["--volume", f"{self.model}:{confine.MODEL_FOLDER}:ro", *(f"--env={name}={value}" for name, value in told.items())]
        before = digest(self.model)
        container = _run(*words, self.tag, "serve")
        program = _ContainerProgram(engine, container)
        try:
            # Root can enter the container's own namespace, where nothing but the server listens.
            private = PrivateNetwork.of_process(program.pid) if is_root else None
            hidden = {} if is_root else {"network": _NO_ROOT}
            client = Client(f"http://127.0.0.1:{outside}")
            yield Server(
                client, hidden, program, private, str(self.model), before, safe_ports, is_image=True, is_tokenport=self.is_tokenport
            )
        finally:
            program.end()


@dataclass
class UrlTarget:
    """A server that runs already: it is asked, never started, signalled or looked into."""

    url: str
    can_start: bool = False
    start_limit_s: float = 10.0
    is_tokenport: bool = False

    @contextlib.contextmanager
    def start(self, environ: Mapping[str, str], *, default_port: bool = False) -> Iterator[Server]:
        """Nothing to start."""
        reason = "of a URL only what it answers can be seen"
        yield Server(Client(self.url.rstrip("/")), dict.fromkeys(("start", "processes", "network", "model", "readonly", "port"), reason))


class _ProcessProgram:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log
        self.pid = process.pid

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def exit_code(self, limit_s: float) -> int | None:
        try:
            code = self._process.wait(limit_s) if limit_s else self._process.poll()
        except subprocess.TimeoutExpired:
            return None
        return code if code is None or code >= 0 else 128 - code

    def last_line(self) -> str:
        return _last_line(self._log.read_text(errors="replace"))

    def end(self) -> None:
        _end_tree(self.pid)
        self._process.wait()


class _ContainerProgram:
    def __init__(self, engine: str, container: str) -> None:
        self._engine, self._container = engine, container
        self.pid = int(_run(engine, "inspect", "--format", "{{.State.Pid}}", container))

    def send_signal(self, number: int) -> None:
        _run(self._engine, "kill", "--signal", signal.Signals(number).name, self._container)

    def exit_code(self, limit_s: float) -> int | None:
        if limit_s == 0:
            state = _run(self._engine, "inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", self._container).split()
            return None if state[0] == "true" else int(state[1])
        try:
            return int(_run(self._engine, "wait", self._container, limit_s=limit_s))
        except subprocess.TimeoutExpired:
            return None

    def last_line(self) -> str:
        logs = subprocess.run([self._engine, "logs", "--tail", "20", self._container], capture_output=True, text=True, check=False)
        return _last_line(logs.stderr or logs.stdout)

    def end(self) -> None:
        _run(self._engine, "rm", "--force", self._container)


def digest(folder: Path) -> str:
    """Of every file below `folder`: name, size, time of change and content."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        state = path.stat()
        whole.update(f"{path.relative_to(folder)} {state.st_mode} {state.st_mtime_ns}\n".encode())
        if path.is_file():
            with path.open("rb") as content:
                whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()


def _sagemaker_environ(port: int, safe_ports: range, *, default_port: bool) -> dict[str, str]:
    environ = {"SAGEMAKER_SAFE_PORT_RANGE": f"{safe_ports.start}-{safe_ports.stop - 1}"}
    return environ if default_port else environ | {"SAGEMAKER_BIND_TO_PORT": str(port)}


def _safe_ports(port: int) -> range:
    start = port + 1 if port + _NUM_SAFE_PORTS < 65535 else port - _NUM_SAFE_PORTS
    return range(start, start + _NUM_SAFE_PORTS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _container_engine(tag: str) -> str:
    found = [engine for engine in ("podman", "docker") if shutil.which(engine)]
    for engine in found:
        if subprocess.run([engine, "image", "inspect", tag], capture_output=True, check=False).returncode == 0:
            return engine
    raise ValueError(f"no image {tag!r}" + (f" in {' or '.join(found)}" if found else ": neither podman nor docker is on PATH"))


def _run(*words: str, limit_s: float = 120.0) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=limit_s).stdout.strip()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "(it said nothing)"


def _end_tree(pid: int) -> None:
    """SIGKILL the process, what descends from it, and what stayed in its group when it went before."""
    tree: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        tree = [*first.children(recursive=True), first]
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(tree, timeout=_END_LIMIT_S)
