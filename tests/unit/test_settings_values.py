"""What each kind of setting takes."""

from typing import Any

import pytest

from serving.engine_arguments import Argument
from serving.settings_values import WrongValueError, convert, expected


@pytest.mark.parametrize(
    ("argument", "raw", "value"),
    [
        *((Argument("x", "bool"), raw, True) for raw in ("true", "TRUE", "1", "Yes", "on", True)),
        *((Argument("x", "switch"), raw, False) for raw in ("false", "False", "0", "no", "OFF", False)),
        (Argument("x", "int"), " -3 ", -3),
        (Argument("x", "size"), "8k", 8000),
        (Argument("x", "size"), "8K", 8192),
        (Argument("x", "size"), "1.5m", 1_500_000),
        (Argument("x", "size"), "2G", 2 << 30),
        (Argument("x", "size"), 7, 7),
        (Argument("x", "size_or_auto"), "auto", -1),
        (Argument("x", "size_or_auto"), "-1", -1),
        (Argument("x", "float"), "0.5", 0.5),
        (Argument("x", "float"), 1, 1.0),
        (Argument("x", "str"), "", ""),
        (Argument("x", "str", default=2), 3, "3"),
        (Argument("x", "str", is_optional=True), "None", None),
        (Argument("x", "int", is_optional=True), "", None),
        (Argument("x", "folded", choices=("deep_gemm",)), "Deep-GEMM", "deep_gemm"),
        (Argument("x", "object"), '{"a": {"b": 80m}, "c": "5k"}', {"a": {"b": 80_000_000}, "c": "5k"}),
        (Argument("x", "array"), '["a"]', ["a"]),
        (Argument("x", "str_or_object"), "module.name", "module.name"),
        (Argument("x", "str_or_object"), ' {"a": 1}', {"a": 1}),
        (Argument("x", "str_or_true"), "True", True),
        (Argument("x", "str_or_true"), "hf_x", "hf_x"),
        (Argument("x", "str", many="words"), "a b,c", ["a", "b,c"]),
        (Argument("x", "str", many="words"), '["a b", "c"]', ["a b", "c"]),
        (Argument("x", "str", many="words"), ["a b"], ["a b"]),
        (Argument("x", "int", many="words"), "1 2", [1, 2]),
        (Argument("x", "int", many="words"), 4, [4]),
        (Argument("x", "str_or_object", many="words"), '{"name": "a", "path": "/b c"}', [{"name": "a", "path": "/b c"}]),
        (Argument("x", "int_or_str", many="commas"), "0, 1,GPU-x", [0, 1, "GPU-x"]),
        (Argument("x", "int_or_str", many="commas"), [2], [2]),
    ],
)
def test_a_fitting_value_is_typed(argument: Argument, raw: Any, value: Any) -> None:
    assert convert(argument, raw) == value
    assert type(convert(argument, raw)) is type(value)


@pytest.mark.parametrize(
    ("argument", "raw"),
    [
        (Argument("x", "bool"), "maybe"),
        (Argument("x", "bool"), 2),
        (Argument("x", "int"), "1.5"),
        (Argument("x", "int"), "1_000"),
        (Argument("x", "int"), "8k"),
        (Argument("x", "int"), True),
        (Argument("x", "size"), "1.5K"),
        (Argument("x", "size"), "auto"),
        (Argument("x", "float"), "much"),
        (Argument("x", "float"), True),
        (Argument("x", "str"), 5),
        (Argument("x", "str"), True),
        (Argument("x", "str"), None),
        (Argument("x", "str", choices=("a",)), "b"),
        (Argument("x", "object"), "[1]"),
        (Argument("x", "object"), '{"a": '),
        (Argument("x", "object"), 3),
        (Argument("x", "array"), "{}"),
        (Argument("x", "str_or_true"), ""),
        (Argument("x", "str", many="words"), ""),
        (Argument("x", "str", many="words"), []),
        (Argument("x", "str", many="words"), "--flag"),
        (Argument("x", "str", many="words"), "[a"),
        (Argument("x", "int", many="words"), "1,2"),
        (Argument("x", "int_or_str", many="commas"), "1,,2"),
        (Argument("x", "int_or_str", many="commas"), [True]),
    ],
)
def test_a_value_that_does_not_fit_is_refused(argument: Argument, raw: Any) -> None:
    with pytest.raises(WrongValueError):
        convert(argument, raw)


def test_expected_says_how_several_values_are_written() -> None:
    assert expected(Argument("x", "int", many="words")) == "one or more, separated by spaces or as a JSON array, each an integer"
    assert expected(Argument("x", "int_or_str", many="commas")) == "one or more, separated by commas, each an integer or a string"
