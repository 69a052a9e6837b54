"""How far the work is: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from serving.engine.prepare.writing import Advance

_LINE_EVERY_S = 10.0


@contextmanager
def progress(total_bytes: int, label: str, stream: TextIO) -> Iterator[Advance]:
    """A function to call with the bytes done since its last call."""
    if stream.isatty():
        from tqdm import tqdm

        with tqdm(total=total_bytes, desc=label, unit="B", unit_scale=True, file=stream, disable=False) as bar:
            yield lambda num_bytes: (bar.update(num_bytes), None)[1]
        return
    started = told = time.monotonic()
    done = 0

    def advance(num_bytes: int) -> None:
        nonlocal done, told
        done += num_bytes
        if time.monotonic() - told >= _LINE_EVERY_S:
            told = time.monotonic()
            print(f"{label}: {done / 1e9:.2f} of {total_bytes / 1e9:.2f} GB after {told - started:.0f} s", file=stream, flush=True)

    yield advance
