"""How it starts, what it listens on, and what it leaves alone: its model folder, the network, the file system."""

import socket
from pathlib import Path

import psutil

from container.conformance.check import INF, ISOLATION, OWN, PORTS, Check, Failed, Skipped, expect
from container.conformance.client import ACCEPT_LIMIT_S
from container.conformance.network import ADDRESS
from container.conformance.server import Server
from container.conformance.target import digest

_LOOPBACK = ("127.", "::1", "::ffff:127.")


def _not_hidden(server: Server, what: str) -> None:
    if reason := server.hidden.get(what):
        raise Skipped(reason)


def _is_first_process(server: Server) -> str:
    _not_hidden(server, "processes")
    owners = [process.pid for process in server.processes() if server.port in _listening(process, loopback=True)]
    expect(bool(owners), f"none of its processes listens on port {server.port}")
    first = server.processes()[0].pid
    expect(first in owners, f"process {owners[0]} listens, which is a child of the one started: a signal to that one may not reach it")
    if not server.is_image:
        return "the process started is the one that listens"
    inside = Path(f"/proc/{first}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()
    expect(inside[-1:] == ["1"], f"it is process {inside[-1:]} of the container")
    return "PID 1 listens"


def _binds_to_port(server: Server) -> str:
    _not_hidden(server, "port")
    return f"answers on {server.port}"


def _reachable(server: Server) -> str:
    if server.network is None:
        raise Skipped(server.hidden.get("network", "it has no network of its own"))
    try:
        socket.create_connection((ADDRESS, server.port), timeout=ACCEPT_LIMIT_S).close()
    except OSError as error:
        raise Failed(f"it listens on loopback alone, where nothing from outside comes: {error}") from error
    return "on the address of its interface as on loopback"


def _default_port(server: Server) -> str:
    _not_hidden(server, "port")
    expect(server.client.ping().status == 200, "nothing answers on 8080")
    return f"answers on {server.port} without SAGEMAKER_BIND_TO_PORT"


def _accepts_while_loading(server: Server) -> str:
    _not_hidden(server, "start")
    loading = server.loading
    expect(len(loading.connects) > 0 and loading.ready_s is not None, "no connection was accepted before it was ready")
    late = [(at_s, took_s) for at_s, took_s in loading.connects if took_s > ACCEPT_LIMIT_S]
    told = [f"{'refused or silent' if took_s == float('inf') else f'{took_s * 1000:.0f} ms'} at {at_s:.1f} s" for at_s, took_s in late]
    expect(not late, f"{len(late)} of {len(loading.connects)} late: {', '.join(told[:3])}")
    slowest_ms = max(took_s for _, took_s in loading.connects) * 1000
    return f"first after {loading.first_accept_s:.2f} s; then {len(loading.connects)} tries until ready, slowest {slowest_ms:.0f} ms"


def _accepts_before_ready(server: Server) -> str:
    _not_hidden(server, "start")
    loading = server.loading
    expect(loading.first_accept_s is not None and loading.ready_s is not None, "no connection was accepted")
    accepted_s, ready_s = loading.first_accept_s or 0.0, loading.ready_s or 0.0
    told = f"connections accepted after {accepted_s:.1f} s, ready after {ready_s:.1f} s"
    expect(accepted_s < max(5.0, ready_s / 2), f"{told}: while it loads, nobody is told so")
    return told


def _ports_in_range(server: Server) -> str:
    _not_hidden(server, "processes")
    allowed = {server.port, *server.safe_ports}
    open_ports = {port: process.name() for process in server.processes() for port in _listening(process, loopback=False)}
    strays = {port: name for port, name in open_ports.items() if port not in allowed}
    listed = ", ".join(f"{port} ({name})" for port, name in strays.items())
    expect(
        not strays, f"listens beyond loopback on {listed}; allowed are {server.port} and {server.safe_ports.start}-{max(server.safe_ports)}"
    )
    return f"only {', '.join(str(port) for port in sorted(open_ports))}"


def _no_way_out(server: Server) -> str:
    _not_hidden(server, "network")
    attempts = server.network.attempts if server.network else {}
    told = ", ".join(f"{where} ({times})" for where, times in list(attempts.items())[:4])
    expect(not attempts, f"tried to reach {told}")
    return "not one packet left loopback"


def _starts_without_network(server: Server) -> str:
    _not_hidden(server, "network")
    return f"ready after {server.loading.ready_s or 0:.1f} s with loopback alone"


def _read_only_root(server: Server) -> str:
    _not_hidden(server, "readonly")
    return "ready, with nothing but /tmp and /dev writable"


def _model_unchanged(server: Server) -> str:
    if server.model_folder is None or server.model_digest is None:
        raise Skipped(server.hidden.get("model", "no model folder was given"))
    expect(digest(Path(server.model_folder)) == server.model_digest, "files changed, appeared or went")
    where = server.hidden.get("model", "mounted read-only")
    return f"names, sizes, times and contents as before ({where})"


def _listening(process: psutil.Process, *, loopback: bool) -> set[int]:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return set()
    listeners = [one.laddr for one in connections if one.status == psutil.CONN_LISTEN]
    return {address.port for address in listeners if loopback or not address.ip.startswith(_LOOPBACK)}


CHECKS = (
    Check("first-process", "ENTRYPOINT is in exec form: the server is PID 1 and gets SIGTERM itself", INF, _is_first_process),
    Check("bind-to-port", "It listens on SAGEMAKER_BIND_TO_PORT", PORTS, _binds_to_port),
    Check("reachable", "It can be reached from outside the container", INF, _reachable),
    Check("accepts-early", "The socket is open before the model is loaded", OWN, _accepts_before_ready),
    Check("accepts-while-loading", "While loading, a connection is accepted within 250 ms at any time", INF, _accepts_while_loading),
    Check("starts-without-network", "It starts with no network at all", ISOLATION, _starts_without_network),
    Check("read-only-root", "It runs with a read-only root file system and a writable /tmp", OWN, _read_only_root),
)
DEFAULT_PORT_CHECKS = (Check("default-port", "Without SAGEMAKER_BIND_TO_PORT it listens on 8080", INF, _default_port),)
AFTERWARDS_CHECKS = (
    Check("ports-in-range", "Beyond loopback it listens only on its port and within SAGEMAKER_SAFE_PORT_RANGE", PORTS, _ports_in_range),
    Check("no-way-out", "It tries to reach nothing outside", ISOLATION, _no_way_out),
    Check("model-unchanged", "/opt/ml/model is never written", INF, _model_unchanged),
)
