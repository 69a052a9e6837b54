"""Settings that cannot be had together. Those of the KV cache and of adapters have files of their own."""

import pytest

from serving.errors import SettingsError
from serving.settings import load_settings


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(argv, {"HOME": "/home/user"} | environ)
    return str(caught.value)


def test_requests_may_be_logged_only_by_both_names() -> None:
    said = "--enable-log-requests: enable_log_requests puts requests into the log, which needs log_requests=true"
    assert refusal("--enable-log-requests").startswith(said)
    assert load_settings(["--log-requests", "--enable-log-requests"], {}).engine == {"enable_log_requests": True}
