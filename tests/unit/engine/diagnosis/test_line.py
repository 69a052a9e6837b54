"""The one line of what several processes said and how they ended. The texts are those of vLLM 0.32 and torch."""

import signal

from serving.engine.diagnosis.exits import is_lost_worker
from serving.engine.diagnosis.line import death, root_cause, start_failure
from serving.engine.diagnosis.rule import Facts

CORE_FAILED = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
WORKER_FAILED = "WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."
CUDA_OOM = (
    "CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a total capacity of 22.06 GiB of which 312.44 MiB is free. Including "
    "non-PyTorch memory, this process has 21.74 GiB memory in use. Of the allocated memory 21.50 GiB is allocated by PyTorch."
)


def explained(text: str, **facts) -> str:
    return start_failure([text], {}, Facts(**facts))


def test_what_no_rule_knows_is_told_as_it_came_but_not_at_any_length():
    assert explained("something new") == "something new"
    assert len(explained("x" * 2000)) < 600


def test_a_workers_failure_is_explained_also_as_the_engine_core_passes_it_on():
    passed_on = f"Worker failed with error '{CUDA_OOM}', please check the stack trace above for the root cause"
    assert explained(passed_on).startswith("not enough GPU memory: GPU 0 has 22.06 GiB")


def test_the_first_failure_that_is_no_consequence_is_the_root_cause():
    assert root_cause(["no such tensor: lm_head", WORKER_FAILED, CORE_FAILED]) == "no such tensor: lm_head"
    assert root_cause(["Connection closed by peer [127.0.0.1]:1234", "no such tensor", WORKER_FAILED]) == "no such tensor"
    assert root_cause([WORKER_FAILED, CORE_FAILED]) == WORKER_FAILED
    assert root_cause([]) == ""


def test_a_worker_killed_while_loading_outweighs_what_its_peers_say():
    told = [
        "Connection closed by peer [127.0.0.1]:1234",
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -9)",
        WORKER_FAILED,
        CORE_FAILED,
    ]
    line = start_failure(told, {"EngineCore": 1}, Facts(oom_killed=True, memory_limit_bytes=8 << 30))
    assert "the worker process of rank 1 was killed by SIGKILL" in line
    assert "out of memory" in line
    assert "8.0 GiB" in line


def test_an_engine_core_killed_while_loading_is_named_with_its_signal():
    line = explained("Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}", oom_killed=None)
    assert line.startswith("the engine core was killed by SIGKILL")
    assert "out of memory" in line


def test_a_kill_is_not_put_down_to_memory_if_the_kernel_counted_none():
    line = death([], {"EngineCore": -signal.SIGKILL}, Facts(oom_killed=False))
    assert line == "the engine process died: the engine core was killed by SIGKILL"


def test_a_bus_error_is_full_shared_memory():
    assert "--shm-size" in death([], {"EngineCore": -signal.SIGBUS}, Facts())


def test_a_death_with_a_reason_tells_the_reason_rather_than_the_exit_code():
    assert death([CUDA_OOM, "EngineCore encountered an issue."], {"EngineCore": 1}, Facts()).startswith(
        "the engine process died: not enough GPU memory"
    )


def test_a_death_without_a_reason_tells_the_exit_code_and_without_that_that_there_is_none():
    assert "exit code 1" in death([], {"EngineCore": 1}, Facts())
    assert death([], {}, Facts()).startswith("the engine process died: ")


def test_a_killed_worker_is_the_reason_though_the_core_ends_by_itself():
    told = ["Worker proc VllmWorker-0 died unexpectedly (exit code: -9)", "Executor failed."]
    assert "the worker process of rank 0 was killed by SIGKILL" in death(told, {"EngineCore": 1}, Facts(oom_killed=False))


def test_the_terminations_that_follow_a_failure_are_not_its_cause():
    assert "no such tensor" in death(["no such tensor"], {"EngineCore": -signal.SIGTERM}, Facts())


def test_a_worker_is_lost_also_before_its_exit_code_is_known():
    text = "Worker proc VllmWorker-2 died unexpectedly (exit code: None), shutting down executor."
    assert is_lost_worker(text)
    assert not is_lost_worker("the adapter could not be loaded")
    assert death([text], {}, Facts()) == "the engine process died: the worker process of rank 2 died"
