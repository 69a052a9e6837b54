"""Values that a setting cannot have."""

import pytest

from serving.errors import SettingsError
from serving.settings import load_settings


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(argv, {"HOME": "/home/user"} | environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argv", "environ", "text"),
    [
        ([], {"TOKENPORT_PORT": "0"}, "TOKENPORT_PORT: expected an integer, got '0'; from 1 to 65535"),
        ([], {"SAGEMAKER_BIND_TO_PORT": "x"}, "SAGEMAKER_BIND_TO_PORT: expected an integer, got 'x'"),
        (["--drain-s", "-1"], {}, "--drain-s: expected a number, got '-1'; 0 or more seconds"),
        (["--drain-s=inf"], {}, "--drain-s: expected a number, got 'inf'; 0 or more seconds"),
        (["--log-level", "warn"], {}, "--log-level: expected one of debug, info, warning, error, got 'warn'; did you mean warning?"),
        ([], {"HF_MODEL_ID": ""}, "HF_MODEL_ID: expected a string, got ''; unset it instead of leaving it empty"),
        ([], {"TOKENPORT_API_KEY": "secret,"}, "TOKENPORT_API_KEY: expected one or more"),
    ],
)
def test_a_value_out_of_bounds_is_refused(argv: list[str], environ: dict[str, str], text: str) -> None:
    assert refusal(*argv, **environ).startswith(text)


@pytest.mark.parametrize("name", ["stall_s", "deadline_s", "stream_deadline_s", "max_queue", "max_queue_tokens", "max_body_bytes"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "many"])
def test_limits_are_refused_that_are_none(name, value):
    assert refusal(**{f"TOKENPORT_{name.upper()}": value}).startswith(f"TOKENPORT_{name.upper()}: expected")
