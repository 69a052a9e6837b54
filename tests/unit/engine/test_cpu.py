from pathlib import Path

import pytest

from serving.engine.cpu import Cores, find_cores, memory_fraction, openmp_environment


def machine(folder: Path, siblings: dict[int, str]) -> Path:
    for cpu, text in siblings.items():
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(text + "\n")
    return folder


def test_one_logical_cpu_of_each_physical_core(tmp_path):
    sys_cpu = machine(tmp_path, {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"})
    assert find_cores([0, 1, 4, 5], sys_cpu=sys_cpu, cgroup=tmp_path) == Cores((0, 1), can_pin=True)


def test_siblings_given_as_a_range(tmp_path):
    sys_cpu = machine(tmp_path, {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"})
    assert find_cores([0, 1, 2, 3], sys_cpu=sys_cpu, cgroup=tmp_path).ids == (0, 2)


def test_a_sibling_outside_the_affinity_is_not_used(tmp_path):
    sys_cpu = machine(tmp_path, {4: "0,4"})
    assert find_cores([4], sys_cpu=sys_cpu, cgroup=tmp_path).ids == (4,)


def test_a_machine_that_tells_no_topology_uses_every_cpu(tmp_path):
    assert find_cores([0, 1, 2], sys_cpu=tmp_path, cgroup=tmp_path).ids == (0, 1, 2)


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 1), ("200000 100000", 2), ("50000 100000", 1)])
def test_a_cpu_quota_limits_the_threads_and_forbids_pinning(tmp_path, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    cores = find_cores([0, 1, 2, 3], sys_cpu=tmp_path, cgroup=tmp_path)
    assert len(cores.ids) == expected
    assert not cores.can_pin


@pytest.mark.parametrize("quota", ["max 100000", "800000 100000"])
def test_a_quota_that_does_not_bind_changes_nothing(tmp_path, quota):
    (tmp_path / "cpu.max").write_text(quota)
    assert find_cores([0, 1], sys_cpu=tmp_path, cgroup=tmp_path) == Cores((0, 1), can_pin=True)


def test_cgroup_v1_quota(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert find_cores([0, 1], sys_cpu=tmp_path, cgroup=tmp_path) == Cores((0,), can_pin=False)


def test_one_rank_gets_all_cores_and_intels_openmp():
    environment = openmp_environment(Cores((0, 2), can_pin=True), 1, Path("/env/lib/libiomp5.so"), {})
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["KMP_AFFINITY"].endswith("proclist=[0,2]")
    assert environment["LD_PRELOAD"] == "/env/lib/libiomp5.so"


def test_what_the_user_set_stands():
    given = {"OMP_NUM_THREADS": "7", "KMP_BLOCKTIME": "0", "LD_PRELOAD": "/mine.so"}
    environment = openmp_environment(Cores((0, 1), can_pin=True), 1, Path("/libiomp5.so"), given)
    assert "OMP_NUM_THREADS" not in environment
    assert "KMP_BLOCKTIME" not in environment
    assert environment["LD_PRELOAD"] == "/libiomp5.so:/mine.so"


def test_several_ranks_share_the_cores():
    environment = openmp_environment(Cores((0, 1, 2, 3), can_pin=True), 2, None, {})
    assert environment == {"VLLM_CPU_OMP_THREADS_BIND": "0,1|2,3"}


def test_more_ranks_than_cores_still_name_a_core_each():
    environment = openmp_environment(Cores((0, 1), can_pin=True), 3, None, {})
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0|1|1"


def test_memory_is_a_share_of_what_is_free_as_a_fraction_of_all():
    assert memory_fraction(50, 100, 1) == 0.25
    assert memory_fraction(50, 100, 2) == 0.12
    assert memory_fraction(1, 1000, 1) == 0.01


def test_whoever_preloads_gnus_openmp_keeps_it():
    environment = openmp_environment(Cores((0, 1), can_pin=True), 1, Path("/libiomp5.so"), {"LD_PRELOAD": "/lib/libgomp.so.1"})
    assert environment == {"OMP_NUM_THREADS": "2"}
