"""Who may import whom. The rooms, lowest first; a file imports from its own room and those below."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("ground", "planner", "engine", "aws", "cascade", "api", "__main__")
HEAVY = {"vllm", "torch", "transformers"}
FILES = sorted((ROOT / "serving").rglob("*.py"))


def room_of(module: str) -> str:
    """`serving.engine.args` -> engine; the files beside the rooms (settings, errors, logs, ...) are the ground."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "ground"


def imports_of(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return found


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_of(file))
def test_imports_run_along_the_arrows(file):
    room = ROOMS.index(room_of(module_of(file)))
    for imported in imports_of(file):
        if imported.startswith("serving."):
            assert ROOMS.index(room_of(imported)) <= room, f"{module_of(file)} imports {imported}"
        assert not imported.startswith(("benchmarks", "container", "tests"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_of(file))
def test_only_the_engine_room_knows_vllm(file):
    if room_of(module_of(file)) != "engine":
        assert not {name.split(".")[0] for name in imports_of(file)} & HEAVY


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_of(file))
def test_the_environment_is_read_in_main_only(file):
    if file.name != "__main__.py":
        assert not re.search(r"os\.environ|os\.getenv", file.read_text())


GROUND_OF_BENCHMARKS = {"serving.errors", "serving.questions"}


def test_benchmarks_stand_on_errors_questions_and_planner_alone():
    for file in (ROOT / "benchmarks").rglob("*.py"):
        ours = {name for name in imports_of(file) if name.startswith("serving")}
        assert all(name in GROUND_OF_BENCHMARKS or room_of(name) == "planner" for name in ours), f"{file}: {ours}"


BENCH_ROOMS = {
    "load": {"load"},
    "client": {"client", "load", "measuring", "machine"},
    "measuring": {"measuring", "load"},
    "machine": {"machine"},
    "report": {"report", "measuring"},
}
"""Of the benchmarks: each room and those that it may import; the commands and what stands beside the rooms may import all."""


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda file: module_of(file))
def test_rooms_of_the_benchmarks(file):
    allowed = BENCH_ROOMS.get(file.relative_to(ROOT / "benchmarks").parts[0])
    imported = {name.split(".")[1] for name in imports_of(file) if name.startswith("benchmarks.")}
    assert allowed is None or imported <= allowed
