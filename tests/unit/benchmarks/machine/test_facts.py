"""What a container may use, from the cgroup's files of both versions."""

from benchmarks.machine import facts


def write(root, name, text):
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_quota_of_version_two(tmp_path):
    write(tmp_path, "cpu.max", "150000 100000\n")
    assert facts.cpu_quota(tmp_path) == 1.5
    write(tmp_path, "cpu.max", "max 100000\n")
    assert facts.cpu_quota(tmp_path) is None


def test_quota_of_version_one(tmp_path):
    write(tmp_path, "cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "cpu/cpu.cfs_period_us", "100000\n")
    assert facts.cpu_quota(tmp_path) is None
    write(tmp_path, "cpu/cpu.cfs_quota_us", "200000\n")
    assert facts.cpu_quota(tmp_path) == 2


def test_no_cgroup_is_no_limit(tmp_path):
    assert facts.cpu_quota(tmp_path) is None
    assert facts.memory_limit_bytes(tmp_path) is None


def test_memory_limits(tmp_path):
    write(tmp_path, "memory.max", "max\n")
    assert facts.memory_limit_bytes(tmp_path) is None
    write(tmp_path, "memory.max", "1048576\n")
    assert facts.memory_limit_bytes(tmp_path) == 2**20


def test_version_one_has_a_number_for_no_limit(tmp_path):
    write(tmp_path, "memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert facts.memory_limit_bytes(tmp_path) is None
    write(tmp_path, "memory/memory.limit_in_bytes", "1048576\n")
    assert facts.memory_limit_bytes(tmp_path) == 2**20


def test_a_quota_below_a_core_is_a_core(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "cpu_quota", lambda: 0.3)
    assert facts.num_allowed_cpus() == 1
    monkeypatch.setattr(facts, "cpu_quota", lambda: 1e9)
    assert facts.num_allowed_cpus() == len(facts.os.sched_getaffinity(0))


def test_the_largest_cache_is_the_last(tmp_path):
    for number, size in enumerate(("48K", "32K", "1024K", "32M")):
        write(tmp_path, f"index{number}/size", size + "\n")
    assert facts.last_level_cache_bytes(tmp_path) == 32 * 2**20
    assert facts.last_level_cache_bytes(tmp_path / "absent") is None


def test_the_machine_tells_what_figures_depend_on():
    found = facts.machine()
    assert found["num_allowed_cpus"] >= 1
    assert found["memory_bytes"] > 2**20
    assert found["packages"]["numpy"]
    assert facts.machine() == found, "nothing in it changes between two runs"
    assert 0 <= facts.busyness()["cpu_busy_share"] <= 1
