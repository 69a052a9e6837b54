"""A number of tokens, sequences or GPUs as it is written on the command line of `tokenport plan MODEL`."""

import re

from serving.errors import PlanError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmKM]?)")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}


def whole_number(option: str, text: str | None) -> int | None:
    """At least 1, in the form of vLLM's options (`human_readable_int` in vllm/utils/argparse_utils.py) up to millions; None for None.

    Raises:
        PlanError: it is none.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    value = float(match[1]) * _UNITS[match[2]] if match else 0
    if value < 1 or value != int(value):
        raise PlanError(f"{option} {text}: a whole number of 1 or more, such as 8, 8k (8000) or 8K (8192)")
    return int(value)
