"""Result documents from requests drawn with fixed seeds: a closed loop whose times are known."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.measuring.metrics import metrics
from benchmarks.measuring.record import Record
from benchmarks.measuring.slo import Slo
from benchmarks.measuring.timing import DEFINITIONS
from benchmarks.measuring.window import steady_window
from benchmarks.report.document import Document, assemble

SLO = Slo(ttft_s=0.2, tpot_s=0.05)


def draw_requests(
    seed: int, *, ttft_s: float = 0.05, tpot_s: float = 0.01, num_requests: int = 200, concurrency: int = 4, num_tokens: int = 16
) -> list[Record]:
    """A closed loop: each place takes the next request as soon as its last one is answered. Times vary by a tenth."""
    generator = np.random.default_rng(seed)
    free_at = [0.0] * concurrency
    records = []
    for number in range(num_requests):
        place = int(np.argmin(free_at))
        due = free_at[place]
        gaps = tpot_s * generator.lognormal(0, 0.1, num_tokens - 1)
        arrivals = due + 0.001 + ttft_s * generator.lognormal(0, 0.1) + np.concatenate([[0.0], np.cumsum(gaps)])
        free_at[place] = float(arrivals[-1]) + 0.0005
        records.append(
            Record(
                number=number,
                scheduled_s=due,
                max_tokens=num_tokens,
                sent_s=due + 0.001,
                arrivals_s=[float(time) for time in arrivals],
                arrival_tokens=[1] * num_tokens,
                ended_s=free_at[place],
                prompt_tokens=32,
                output_tokens=num_tokens,
                finish_reason="length",
                status=200,
            )
        )
    return records


def fail(record: Record, kind: str) -> None:
    """As if the connection had been lost after some tokens."""
    record.error, record.error_kind, record.finish_reason = f"{kind} in the test", kind, None


def run_of(records: Sequence[Record], index: int, concurrency: int, repeat: int, reasons: Sequence[str] = ()) -> dict[str, Any]:
    window = steady_window(records, is_open=False)
    for record in records:
        record.run = index
    return {
        "index": index,
        "label": f"concurrency {concurrency}",
        "load": {"kind": "closed", "concurrency": concurrency, "rate": None},
        "repeat": repeat,
        "valid": not reasons,
        "invalid_reasons": list(reasons),
        "window": {"start_s": window.start_s, "end_s": window.end_s, "how": window.how},
        "metrics": metrics(records, window, SLO),
        "from_send": metrics(records, window, SLO, from_send=True),
        "client": [
            {"process": 0, "wall_s": 5.0, "cpu_share": 0.2, "loop_lag_s": {"p50": 0.0, "p99": 0.001, "max": 0.002}, "num_requests": 1}
        ],
        "timeline": [{"at_s": at / 2, "running": concurrency, "waiting": 0, "kv_cache_usage": 0.01 * at} for at in range(12)],
    }


@pytest.fixture(scope="session")
def make_document() -> Callable[..., Document]:
    """`make_document(seed, points=((concurrency, repeats), ...), num_failed=0, invalid_reasons=(), more={}, **of draw_requests)`."""

    def make(
        seed: int = 1,
        *,
        points: Sequence[tuple[int, int]] = ((4, 1),),
        num_failed: int = 0,
        invalid_reasons: Sequence[str] = (),
        spread: float = 0.0,
        settings: dict[str, Any] | None = None,
        target: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
        **drawn: Any,
    ) -> Document:
        runs, requests = [], []
        for concurrency, repeats in points:
            for repeat in range(repeats):
                index = len(runs)
                slow = float(np.random.default_rng([seed, index]).lognormal(0, spread)) if spread else 1.0
                times = {name: drawn.get(name, default) * slow for name, default in (("ttft_s", 0.05), ("tpot_s", 0.01))}
                records = draw_requests(seed * 1000 + index, concurrency=concurrency, **{**drawn, **times})
                for record in records[20 : 20 + num_failed]:
                    fail(record, "broken")
                runs.append(run_of(records, index, concurrency, repeat, invalid_reasons))
                requests += [record.to_json() for record in records]
        return assemble(
            "throughput",
            command="tokenport bench throughput --url http://127.0.0.1:8080",
            settings={"input_len": 32, "output_len": 16, "concurrency": points[0][0], **(settings or {})},
            target={"api": "completions", "url": "http://127.0.0.1:8080", "model": "a-model", **(target or {})},
            machine={"cpu": {"name": "a processor", "cores": 8}, "memory_bytes": 2**34},
            versions={"tokenport": "0.1.0", "vllm": "0.32.0"},
            definitions=DEFINITIONS,
            metrics=runs[0]["metrics"],
            from_send=runs[0]["from_send"],
            runs=runs,
            requests=requests,
            invalid_reasons=invalid_reasons,
            **(more or {}),
        )

    return make
