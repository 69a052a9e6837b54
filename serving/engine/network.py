"""Where vLLM's processes listen: on one machine on loopback only, and on SageMaker within the range of ports that the platform leaves free.

One rank talks over Unix sockets alone; several need TCP ports for torch.distributed and Gloo.
"""

import re
from collections.abc import Mapping

from serving.errors import SettingsError

_RANGE = "SAGEMAKER_SAFE_PORT_RANGE"
"""https://docs.aws.amazon.com/sagemaker/latest/dg/multi-container-best-practices.html"""
_LARGEST_PORT = 65535


def network_environment(environ: Mapping[str, str], *, is_one_machine: bool) -> dict[str, str]:
    """Variables for the engine's processes; what the user set stands.

    Raises:
        SettingsError: the range is not FIRST-LAST.
    """
    chosen: dict[str, str] = {}
    if is_one_machine:
        chosen |= {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    if (ports := environ.get(_RANGE)) is not None:
        # vLLM takes the next free port from here on.
        chosen["VLLM_PORT"] = str(_first_port(ports))
    return {name: value for name, value in chosen.items() if name not in environ}


def _first_port(ports: str) -> int:
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", ports.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= _LARGEST_PORT:
        raise SettingsError(f"{_RANGE}: expected FIRST-LAST, two ports from 1 to {_LARGEST_PORT}, got {ports[:40]!r}")
    return int(match[1])
