"""Logs are JSON lines on standard error, in every process of the server, each with the id of the request it belongs to.

The same configuration is applied here and written to a file for vLLM's processes. vLLM's own lines are shown from ERROR up (all of them at
level debug): of what it warns at start, what a user can act on is said by Tokenport itself. Prompts and completions appear only where
`log_requests` asks for them.
"""

import json
import logging.config
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request being served in this context."""

_REQUEST_LOGGER = "vllm.entrypoints.serve.utils.request_logger"


class JsonFormatter(_JsonFormatter):
    """time, level, logger, message, request_id where there is one, then whatever the call gave as `extra`."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add the request's id."""
        super().add_fields(log_data, record, message_dict)
        if (identifier := request_id.get()) is not None:
            log_data.setdefault("request_id", identifier)
        # vLLM's record factory puts its process name into every record, for its own text format.
        log_data.pop("vllm_process_name", None)


def configure_logging(level: str, *, log_requests: bool, config_file: Path) -> None:
    """Set up this process, and write the same to `config_file` for vLLM's processes."""
    config = _logging_config(level.upper(), log_requests=log_requests)
    config_file.write_text(json.dumps(config))
    logging.config.dictConfig(config)
    logging.captureWarnings(level == "debug")


def _logging_config(level: str, *, log_requests: bool) -> dict[str, Any]:
    engine_level = "DEBUG" if level == "DEBUG" else "ERROR"
    loggers: dict[str, Any] = {
        "tokenport": {"level": level},
        "vllm": {"level": engine_level},
        "uvicorn": {"level": "WARNING"},
        # PyTorch writes its warnings with a handler of its own; that Triton is missing on a CPU is none.
        "torch._library.triton": {"level": "ERROR"},
    }
    if log_requests:
        loggers[_REQUEST_LOGGER] = {"level": "DEBUG"}
    elif level == "DEBUG":
        loggers[_REQUEST_LOGGER] = {"level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "serving.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": "ERROR", "handlers": ["stderr"]},
        "loggers": loggers,
    }
