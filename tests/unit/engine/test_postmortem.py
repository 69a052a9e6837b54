from pathlib import Path

import pytest

from serving.engine.postmortem import Postmortem, memory_limit_bytes, num_oom_kills
from serving.engine.progress import ProgressListener
from serving.errors import StartError

V2 = {"memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n", "memory.max": "8589934592\n"}
V1 = {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", "memory.limit_in_bytes": "4294967296\n"}


def cgroups(folder: Path, where: str, files: dict[str, str], own: str) -> dict[str, Path]:
    (folder / "fs" / where).mkdir(parents=True)
    for name, text in files.items():
        (folder / "fs" / where / name).write_text(text)
    (folder / "own").write_text(own)
    return {"cgroups": folder / "fs", "own": folder / "own"}


@pytest.mark.parametrize(
    ("where", "files", "own", "kills", "limit_bytes"),
    [
        (".", V2, "0::/\n", 2, 8 << 30),
        ("kube/pod", V2, "0::/kube/pod\n", 2, 8 << 30),
        ("memory", V1, "4:memory:/docker/abc\n0::/\n", 5, 4 << 30),
        ("memory/docker", V1, "4:cpu,memory:/docker\n", 5, 4 << 30),
        (".", {"memory.max": "max\n"}, "0::/\n", None, None),
        ("memory", {"memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", None, None),
        (".", {}, "", None, None),
    ],
    ids=["v2 as a container sees it", "v2", "v1 as a container sees it", "v1", "v2 without limit", "v1 without limit", "nothing"],
)
def test_kills_and_limit_are_read_from_either_version_of_cgroups(tmp_path, where, files, own, kills, limit_bytes):
    paths = cgroups(tmp_path, where, files, own)
    assert num_oom_kills(**paths) == kills
    assert memory_limit_bytes(**paths) == limit_bytes


def test_only_a_count_that_rose_since_the_start_is_put_down_to_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.engine.postmortem.num_oom_kills", lambda: kills)
    monkeypatch.setattr("serving.engine.postmortem.memory_limit_bytes", lambda: 8 << 30)
    kills = 3
    with ProgressListener(lambda *_: None) as progress:
        postmortem = Postmortem({}, on_cpu=True, progress=progress)
        assert "out of memory" not in postmortem.death({"EngineCore": -9})
        kills = 4
        assert "the memory limit is 8.0 GiB" in postmortem.death({"EngineCore": -9})


def test_what_an_engine_process_told_outweighs_what_reached_this_one():
    with ProgressListener(lambda *_: None) as progress:
        progress._errors.append((0.0, "no such tensor: lm_head"))
        failed = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}")
        error = Postmortem({}, on_cpu=True, progress=progress).start_error(failed, {"EngineCore": 1})
    assert isinstance(error, StartError)
    assert str(error) == "no such tensor: lm_head"
