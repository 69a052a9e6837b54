"""Tokenport's CPU defaults against bare vLLM's, side by side.

python -m benchmarks.cpu_defaults MODEL_FOLDER --out benchmarks/results/FILE.json
"""

import argparse
import sys
from pathlib import Path

from benchmarks.machine.servers import BARE, TOKENPORT, VLLM, Contestant
from benchmarks.side_by_side import main


def contestants(_options: argparse.Namespace) -> tuple[Contestant, ...]:
    """Tokenport and vLLM as each starts by itself; vLLM uncompiled; vLLM with the choices that Tokenport makes."""
    tuned = {**BARE, "LD_PRELOAD": str(Path(sys.prefix) / "lib" / "libiomp5.so"), "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    return (
        Contestant("tokenport", TOKENPORT),
        Contestant("vllm defaults", VLLM, BARE),
        Contestant("vllm defaults, eager", [*VLLM, "--enforce-eager"], BARE),
        Contestant("vllm tuned", [*VLLM, "--enforce-eager", "--dtype", "bfloat16"], tuned),
    )


if __name__ == "__main__":
    main("benchmarks.cpu_defaults", __doc__, contestants)
