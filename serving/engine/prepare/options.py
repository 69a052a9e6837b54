"""The words of `tokenport prepare`, read and explained."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.planner.commands.one_line_parser import OneLineParser

METHODS = ("int8", "llm-int8", "nf4")


@dataclass(frozen=True)
class Options:
    """What to prepare and how. `model` is a folder, a hub id or `embedded`; `out` is absolute; `quantization` is None for weights as they
    are; `smooth` is SmoothQuant's alpha; `tensor_parallel_size` is None for a checkpoint that is not split; `dtype` is for one that is."""

    model: str
    out: Path
    quantization: str | None
    ignore: tuple[str, ...]
    smooth: float | None
    tensor_parallel_size: int | None
    dtype: str | None
    quality: bool
    warm: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the bytes that are written: a run goes on only with the same."""
        return {
            "quantization": self.quantization,
            "ignore": sorted(set(self.ignore)),
            "smooth": self.smooth,
            "tensor_parallel_size": self.tensor_parallel_size,
            "dtype": self.dtype,
        }


def parse(words: Sequence[str]) -> Options:
    """Read the words after `prepare`. Wrong ones end the process with 2 and one line."""
    parser = _parser()
    found = parser.parse_args(words)
    method, size = found.quantization, found.tensor_parallel_size
    if method is None and size is None:
        parser.error("nothing to do: give --quantization, --tensor-parallel-size or both")
    if found.ignore and method != "int8":
        parser.error(f"--ignore is for --quantization int8; with {method} bitsandbytes chooses the layers")
    if found.smooth is not None and method != "int8":
        parser.error(f"--smooth is for --quantization int8, not for {method}")
    if size is not None and method not in (None, "int8"):
        parser.error(f"--tensor-parallel-size is for 16 bit and int8, not for {method}")
    if size is not None and found.quality:
        parser.error("--quality measures the whole model: give it without --tensor-parallel-size")
    if size is None and found.dtype is not None:
        parser.error("--dtype is for --tensor-parallel-size; otherwise tensors keep their types")
    return Options(
        model=found.model,
        out=found.out.absolute(),
        quantization=method,
        ignore=tuple(found.ignore),
        smooth=found.smooth,
        tensor_parallel_size=size,
        dtype=found.dtype,
        quality=found.quality,
        warm=found.warm,
    )


def help_text() -> str:
    """What `tokenport prepare --help` prints."""
    return _parser().format_help()


def _alpha(word: str) -> float:
    try:
        alpha = float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is no number; write --smooth=0.5, or --smooth as the last word") from None
    if not 0 < alpha < 1:
        raise argparse.ArgumentTypeError(f"{word} is not between 0 and 1")
    return alpha


def _size(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of ranks: 1 or more")
    return int(word)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="tokenport prepare",
        description="Write a checkpoint that is quantised, split for ranks, or both. Where it was interrupted, the same command goes on.",
    )
    parser.add_argument("model", metavar="MODEL", help="a 16-bit safetensors checkpoint: folder, hub id, s3://, archive, or `embedded`")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder, or one that this command began")
    methods = "int8: compressed-tensors W8A8, for vLLM on CPU and CUDA; llm-int8, nf4: bitsandbytes, for vLLM on CUDA with its plugin"
    parser.add_argument("--quantization", choices=METHODS, help=methods)
    ignore = "a layer to keep in 16 bit, by its name or as re: and a regular expression; may be repeated"
    parser.add_argument("--ignore", action="append", default=[], metavar="PATTERN", help=ignore)
    smooth = "move the large activations of a few channels into the weights first (SmoothQuant; 0.5 where no ALPHA is given)"
    parser.add_argument("--smooth", nargs="?", const=0.5, type=_alpha, metavar="ALPHA", help=smooth)
    ranks = "split it for so many ranks: each reads its own files, padded where heads do not divide; int8 or 16 bit"
    parser.add_argument("--tensor-parallel-size", type=_size, metavar="N", help=ranks)
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), help="16-bit type of a split checkpoint; unset: the source's")
    warm = "start the server on the result once, with the settings in the environment, and ship what it compiles (.tokenport-cache)"
    parser.add_argument("--warm", action="store_true", help=warm)
    quality = "measure the result against the 16-bit model, through the engine (minutes): perplexity, KL divergence"
    parser.add_argument("--quality", action="store_true", help=quality)
    return parser
