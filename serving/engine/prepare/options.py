"""The words of `tokenport prepare`, read and explained."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from serving.errors import SettingsError

METHODS = ("int8", "llm-int8", "nf4")


@dataclass(frozen=True)
class Options:
    """What to prepare and how. `model` is a folder, a hub id or `embedded`; `out` is absolute; `smooth` is SmoothQuant's alpha."""

    model: str
    out: Path
    quantization: str
    ignore: tuple[str, ...]
    smooth: float | None
    quality: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the bytes that are written: a run goes on only with the same."""
        return {"quantization": self.quantization, "ignore": sorted(set(self.ignore)), "smooth": self.smooth}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"prepare: {message}; see tokenport prepare --help")


def parse(words: Sequence[str]) -> Options:
    """Read the words after `prepare`. Raises `SettingsError`."""
    found = _parser().parse_args(words)
    if found.ignore and found.quantization != "int8":
        raise SettingsError(f"--ignore is for --quantization int8; with {found.quantization} bitsandbytes chooses the layers")
    if found.smooth is not None and found.quantization != "int8":
        raise SettingsError(f"--smooth is for --quantization int8, not for {found.quantization}")
    return Options(found.model, found.out.absolute(), found.quantization, tuple(found.ignore), found.smooth, found.quality)


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tokenport prepare",
        description="Write a quantised checkpoint. Where it was interrupted, the same command goes on.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder with a 16-bit safetensors checkpoint, a hub id, or `embedded`")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder, or one that this command began")
    methods = "int8: compressed-tensors W8A8, for vLLM on CPU and CUDA; llm-int8, nf4: bitsandbytes, for vLLM on CUDA with its plugin"
    parser.add_argument("--quantization", choices=METHODS, required=True, help=methods)
    ignore = "a layer to keep in 16 bit, by its name or as re: and a regular expression; may be repeated"
    parser.add_argument("--ignore", action="append", default=[], metavar="PATTERN", help=ignore)
    smooth = "move the large activations of a few channels into the weights first (SmoothQuant; 0.5 where no ALPHA is given)"
    parser.add_argument("--smooth", nargs="?", const=0.5, type=_alpha, metavar="ALPHA", help=smooth)
    quality = "measure the result against the 16-bit model, through the engine (minutes): perplexity, KL divergence"
    parser.add_argument("--quality", action="store_true", help=quality)
    return parser
