"""Limits that an answer must keep to count as good, and the named presets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from benchmarks.measuring.record import Record
from benchmarks.measuring.timing import e2e_s, tpot_s, ttft_s
from serving.errors import BenchmarkError

_UNITS_S = {"ms": 0.001, "s": 1.0}
_METRICS = ("ttft", "tpot", "e2e")

# MLPerf Inference v5.1, server and interactive scenarios, 99th percentiles of TTFT and TPOT in ms:
# https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc
_MLPERF_MS: Mapping[str, tuple[int, int]] = {
    "mlperf-llama3.1-8b-server": (2000, 100),
    "mlperf-llama3.1-8b-interactive": (500, 30),
    "mlperf-llama2-70b-server": (2000, 200),
    "mlperf-llama2-70b-interactive": (450, 40),
    "mlperf-llama3.1-405b-server": (6000, 175),
    "mlperf-llama3.1-405b-interactive": (4500, 80),
    "mlperf-deepseek-r1-server": (2000, 80),
    "mlperf-deepseek-r1-interactive": (1500, 15),
    "mlperf-gpt-oss-120b-server": (3000, 80),
    "mlperf-gpt-oss-120b-interactive": (2000, 20),
}


@dataclass(frozen=True, slots=True)
class Slo:
    """Upper limits in seconds, from the scheduled time; None for no limit. `share` of all requests, failed ones among them, must keep
    them."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    share: float = 0.99

    def is_kept_by(self, record: Record) -> bool:
        """Whether this request was answered whole and within the limits. A limit on tokens' times is not kept by an answer that has
        none."""
        if not record.is_whole:
            return False
        measured = (ttft_s(record), tpot_s(record), e2e_s(record))
        for limit, value, is_needed in zip(
            (self.ttft_s, self.tpot_s, self.e2e_s), measured, (True, record.num_tokens > 1, True), strict=True
        ):
            if limit is not None and is_needed and (value is None or value > limit):
                return False
        return True

    def to_json(self) -> dict[str, float | None]:
        """As it stands in the document."""
        return {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s, "share": self.share}


def parse_slo(text: str, share: float) -> Slo:
    """`ttft=500ms,tpot=30ms,e2e=5s`, any of the three, or the name of a preset.

    Raises:
        BenchmarkError: a name or a limit is not one.
    """
    if not 0 < share <= 1:
        raise BenchmarkError(f"--slo-share {share}: write a share above 0 and up to 1, like 0.99")
    if "=" not in text:
        if text not in _MLPERF_MS:
            near = get_close_matches(text, _MLPERF_MS, n=1, cutoff=0)
            raise BenchmarkError(f"--slo {text!r} is no preset; the nearest is {near[0]}. Or write limits: ttft=500ms,tpot=30ms,e2e=5s")
        ttft_ms, tpot_ms = _MLPERF_MS[text]
        return Slo(ttft_s=ttft_ms / 1000, tpot_s=tpot_ms / 1000, share=share)
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        number = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", value.strip())
        if name not in _METRICS or number is None or float(number[1]) <= 0:
            raise BenchmarkError(f"--slo {part.strip()!r}: write limits like ttft=500ms,tpot=30ms,e2e=5s; known are {', '.join(_METRICS)}")
        if f"{name}_s" in limits:
            raise BenchmarkError(f"--slo {text!r}: {name} is given twice")
        limits[f"{name}_s"] = float(number[1]) * _UNITS_S[number[2]]
    return Slo(**limits, share=share)
