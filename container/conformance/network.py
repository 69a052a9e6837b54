"""A network of the server's own, with no way out: a namespace that holds loopback and one interface of which every packet is recorded.

The calling thread moves into it, and so does every thread and process it starts afterwards. Needs root on Linux.
"""

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections import Counter
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_libc = ctypes.CDLL(None, use_errno=True)

# linux/if_tun.h, linux/sockios.h, linux/if.h, linux/route.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCADDRT = 0x8914, 0x8916, 0x890B
_IFF_UP_RUNNING, _RTF_UP = 0x41, 0x1
_INTERFACE = "sm0"
ADDRESS = "169.254.255.2"
"""Of the one interface: what comes from outside comes here."""
_PROTOCOLS = {6: "TCP", 17: "UDP"}


def has_privilege() -> bool:
    """Whether namespaces with an interface can be made: root on Linux with the right to, which root in a container may lack."""
    if not (Path("/proc/self/ns/net").exists() and os.access("/dev/net/tun", os.R_OK | os.W_OK)):
        return False
    capabilities = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    return all(capabilities >> number & 1 for number in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))


class PrivateNetwork:
    """The namespace that this thread is in now. `attempts` counts packets that wanted out, by protocol and destination; all are dropped."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self._tun = _open_way_out()
        threading.Thread(target=self._record, daemon=True).start()

    @classmethod
    def new(cls) -> "PrivateNetwork":
        """Move into a new namespace."""
        _call(_libc.unshare(_CLONE_NEWNET), "unshare")
        _set_up("lo")
        return cls()

    @classmethod
    def of_process(cls, pid: int) -> "PrivateNetwork":
        """Move into the namespace of a process: a container's first."""
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            _call(_libc.setns(namespace, _CLONE_NEWNET), "setns")
        finally:
            os.close(namespace)
        return cls()

    def _record(self) -> None:
        while True:
            packet = os.read(self._tun, 65536)
            if packet[0] >> 4 != 4 or packet[9] not in _PROTOCOLS:
                continue
            header_length = (packet[0] & 15) * 4
            (port,) = struct.unpack("!H", packet[header_length + 2 : header_length + 4])
            self.attempts[f"{_PROTOCOLS[packet[9]]} {socket.inet_ntoa(packet[16:20])}:{port}"] += 1


def _open_way_out() -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", _INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI))
    # Else the kernel itself would announce the interface to IPv6 neighbours.
    Path(f"/proc/sys/net/ipv6/conf/{_INTERFACE}/disable_ipv6").write_text("1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s", _INTERFACE.encode()) + _socket_address(ADDRESS) + bytes(8))
    _set_up(_INTERFACE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = ctypes.create_string_buffer(_INTERFACE.encode())
        # struct rtentry of a 64-bit Linux: destination, gateway and mask all zero are the default route.
        rest = struct.pack("HhQPhPQQH6x", _RTF_UP, 0, 0, 0, 0, ctypes.addressof(name), 0, 0, 0)
        route = struct.pack("Q", 0) + _socket_address("0.0.0.0") * 3 + rest
        fcntl.ioctl(control, _SIOCADDRT, route)
    return tun


def _set_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", interface.encode(), _IFF_UP_RUNNING))


def _socket_address(address: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
