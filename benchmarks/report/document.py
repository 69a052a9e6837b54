"""The result document of one run: put together, kept as a file, read again. What its fields mean stands in `schema.json`."""

import datetime
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import schema, verdict
from serving.errors import BenchmarkError

SCHEMA_VERSION = 1

Document = dict[str, Any]


def assemble(
    kind: str,
    *,
    command: str | Sequence[str],
    settings: Mapping[str, Any],
    target: Mapping[str, Any],
    machine: Mapping[str, Any],
    versions: Mapping[str, Any],
    definitions: Mapping[str, str],
    metrics: Mapping[str, Any],
    from_send: Mapping[str, Any] | None = None,
    runs: Sequence[Mapping[str, Any]] = (),
    requests: Sequence[Mapping[str, Any]] = (),
    invalid_reasons: Sequence[str] = (),
    in_words: str | None = None,
    **more: Any,
) -> Document:
    """A document that fits the schema. `more`: limits, efficiency, energy, cost, ledger, pair, or what a kind has of its own.

    `in_words`: the verdict, where the kind has one of its own; else it is made from the rest.

    Raises:
        BenchmarkError: what was given does not make a document that fits.
    """
    document: Document = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _without_key(command),
        "versions": versions,
        "machine": machine,
        "target": _without_headers(target),
        "settings": {name: "***" if name.endswith("api_key") and value else value for name, value in settings.items()},
        "definitions": definitions,
        "valid": not invalid_reasons,
        "invalid_reasons": list(invalid_reasons),
        "verdict": "",
        "metrics": metrics,
        "from_send": from_send,
        "runs": list(runs),
        "requests": list(requests),
        **{name: None for name in ("limits", "efficiency", "energy", "cost", "ledger")},
        **more,
    }
    document = _plain(document)
    document["verdict"] = in_words or verdict.in_words(document)
    schema.check(document)
    return document


def keep(document: Mapping[str, Any], path: Path) -> None:
    """Write the file whole or not at all: beside it first, then into its place. A request a line, so that files can be looked into.

    Raises:
        BenchmarkError: the folder cannot be written to.
    """
    keep_text(as_text(document), path)


def keep_text(text: str, path: Path) -> None:
    """The same for any text.

    Raises:
        BenchmarkError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise BenchmarkError(f"{path} cannot be written: {error.strerror}") from error


def as_text(document: Mapping[str, Any]) -> str:
    """The document as JSON."""
    plain = _plain(dict(document))
    requests = plain.pop("requests", [])
    head = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    lines = ",\n".join("  " + json.dumps(request, ensure_ascii=False, allow_nan=False) for request in requests)
    return f'{head[:-2]},\n "requests": [\n{lines}\n ]\n}}\n'


def load(path: Path) -> Document:
    """Read a document back.

    Raises:
        BenchmarkError: there is no such file, it is no result, it was written by a newer version, or a field is missing or wrong.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BenchmarkError(f"{path} is no result of tokenport bench: it is not JSON ({error})") from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BenchmarkError(f"{path} is no result of tokenport bench: it has no schema_version; give a file that --out wrote")
    if version > SCHEMA_VERSION:
        raise BenchmarkError(f"{path} has schema_version {version}, this version reads {SCHEMA_VERSION}: read it with a newer tokenport")
    try:
        schema.check(found)
    except BenchmarkError as error:
        raise BenchmarkError(f"{path} is no whole result of tokenport bench: {error}") from error
    return dict(found)


def _without_key(command: str | Sequence[str]) -> str | list[str]:
    """Results are shown around: the key to the server stays out of them."""
    if isinstance(command, str):
        return re.sub(r"(--api-key[ =])\S+", r"\1***", command)
    words = [re.sub(r"^(--api-key=).*", r"\1***", word, flags=re.DOTALL) for word in command]
    return ["***" if before == "--api-key" else word for before, word in zip(["", *words], words, strict=False)]


def _without_headers(target: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sorted(value) if name == "headers" and isinstance(value, Mapping) else value for name, value in target.items()}


def _plain(value: Any) -> Any:
    """What JSON can hold: numpy's numbers as Python's, and null for a number that is none, since JSON has no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item") and hasattr(value, "dtype"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
