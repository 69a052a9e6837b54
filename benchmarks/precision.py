"""One model in BF16, in INT8 quantised while loading, in INT8 prepared, and in vLLM as it starts by itself, side by side.

    python -m benchmarks.precision MODEL_FOLDER --prepared INT8_FOLDER --out benchmarks/results/FILE.json

INT8_FOLDER is what `tokenport prepare MODEL_FOLDER INT8_FOLDER --quantization int8` wrote. The rows of the starts hold the bytes of the
weights, as `GET /memory` gives them.
"""

import argparse

from benchmarks.machine.servers import BARE, TOKENPORT, VLLM, Contestant
from benchmarks.side_by_side import main


def contestants(options: argparse.Namespace) -> tuple[Contestant, ...]:
    """INT8 in flight first: it is held to the others."""
    prepared = [options.prepared if word == "{model}" else word for word in TOKENPORT]
    return (
        Contestant("int8 in flight", [*TOKENPORT, "--quantization", "int8"]),
        Contestant("int8 prepared", prepared),
        Contestant("bf16", TOKENPORT),
        Contestant("vllm defaults", VLLM, BARE),
        Contestant("vllm defaults, eager", [*VLLM, "--enforce-eager"], BARE),
    )


if __name__ == "__main__":
    main("benchmarks.precision", __doc__, contestants, "prepared")
