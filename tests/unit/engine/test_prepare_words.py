"""The words of `tokenport prepare`, and the text that quality is measured on."""

from pathlib import Path

import pytest

from serving.engine.prepare.log_probabilities import text
from serving.engine.prepare.options import Options, help_text, parse


def test_the_words_become_options() -> None:
    flags = ["--ignore", "re:.*down_proj", "--ignore", "model.layers.0.mlp.up_proj", "--smooth", "--quality"]
    words = ["models/a", "/out", "--quantization", "int8", *flags]
    ignore = ("re:.*down_proj", "model.layers.0.mlp.up_proj")
    assert parse(words) == Options("models/a", Path("/out"), "int8", ignore, 0.5, None, None, quality=True, warm=False)
    words = ["a", "/out", "--tensor-parallel-size", "2", "--dtype", "float16", "--warm"]
    assert parse(words) == Options("a", Path("/out"), None, (), None, 2, "float16", quality=False, warm=True)


def test_the_order_of_what_is_ignored_is_no_other_setting() -> None:
    one = parse(["a", "b", "--quantization", "int8", "--ignore", "x", "--ignore", "y"])
    other = parse(["a", "b", "--quantization", "int8", "--ignore", "y", "--ignore", "x", "--ignore", "x"])
    assert one.settings == other.settings


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("a b", "--quantization"),
        ("a --quantization int8", "OUT"),
        ("a b --quantization int4", "int4"),
        ("a b c --quantization int8", "unknown 'c'"),
        ("a b --quant int8", "unknown '--quant'"),
        ("a b --quantisation int8", "unknown '--quantisation'; did you mean --quantization?"),
        ("a b --warm", "give --quantization, --tensor-parallel-size or both"),
        ("a b --tensor-parallel-size 0", "1 or more"),
        ("a b --tensor-parallel-size 2 --quantization nf4", "not for nf4"),
        ("a b --tensor-parallel-size 2 --quality", "--quality measures the whole model"),
        ("a b --quantization int8 --dtype float16", "--dtype is for --tensor-parallel-size"),
        ("a b --quantization nf4 --ignore x", "--ignore is for --quantization int8"),
        ("a b --quantization llm-int8 --smooth", "--smooth is for --quantization int8"),
        ("a b --quantization int8 --smooth 1.5", "1.5 is not between 0 and 1"),
        ("--quantization int8 --smooth a b", "write --smooth=0.5, or --smooth as the last word"),
    ],
)
def test_wrong_words_are_named(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words.split())
    [line] = capsys.readouterr().err.splitlines()
    assert (ended.value.code, line.partition(": ")[0]) == (2, "tokenport prepare")
    assert told in line


def test_help_names_every_option() -> None:
    for word in ("MODEL", "OUT", "--quantization", "--ignore", "--smooth", "--tensor-parallel-size", "--dtype", "--warm", "--quality"):
        assert word in help_text()


def test_the_text_ships_along_and_is_plain_ascii_of_the_stated_length() -> None:
    assert text().isascii()
    assert 1500 < len(text().split()) < 2500
