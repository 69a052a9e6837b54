"""What became of each request, and what that is in figures: every one is in time, late or refused, exactly one of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.planner.cost.requests import Floats

_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Speed:
    """Seconds to the first token of an answer, and for each token after it; as `tokenport bench` measures them."""

    ttft_s: float
    tpot_s: float

    def __str__(self) -> str:
        return f"TTFT {self.ttft_s * 1000:.0f} ms, TPOT {self.tpot_s * 1000:.1f} ms"

    def service_s(self, output_tokens: Floats) -> Floats:
        """From the start of the work on a request to its last token."""
        return self.ttft_s + np.maximum(output_tokens - 1, 0) * self.tpot_s


@dataclass(frozen=True)
class Slo:
    """Limits in seconds from a request's arrival to the start of the work on it, its first and its last token, None for none; `share` of
    all requests must keep them."""

    wait_s: float | None = None
    ttft_s: float | None = None
    e2e_s: float | None = None
    share: float = 0.99


@dataclass(frozen=True)
class Outcome:
    """Arrays of one entry a request. `wait_s` from its arrival to the start of the work on it; `ttft_s` and `e2e_s` from its arrival to
    the first and last token. NaN where refused, and where the speed is not known."""

    is_refused: NDArray[np.bool_]
    wait_s: Floats
    ttft_s: Floats
    e2e_s: Floats


def outcome(wait_s: Floats, is_refused: NDArray[np.bool_], output_tokens: Floats, speed: Speed | None) -> Outcome:
    """Of requests that waited so long and are then answered at `speed`."""
    wait_s = np.where(is_refused, np.nan, wait_s)
    if speed is None:
        unknown = np.full(len(wait_s), np.nan)
        return Outcome(is_refused, wait_s, unknown, unknown)
    return Outcome(is_refused, wait_s, wait_s + speed.ttft_s, wait_s + speed.service_s(output_tokens))


@dataclass(frozen=True)
class Measures:
    """Percentiles by their name (`p50`), None where not known; the shares are of all requests and add up to one.

    `holds_slo` None: there are limits on latency, the latency is not known, and nothing else breaks them. `is_too_slow`: more are late
    without having waited than may be, so that more units would not help."""

    wait_s: dict[str, float | None]
    ttft_s: dict[str, float | None]
    e2e_s: dict[str, float | None]
    share_in_time: float
    share_late: float
    share_refused: float
    holds_slo: bool | None
    is_too_slow: bool

    def to_json(self) -> dict[str, Any]:
        """As it stands in the report."""
        return dict(vars(self))


def measure(found: Outcome, slo: Slo) -> Measures:
    """The figures of an outcome. A request with no known latency counts as in time: `holds_slo` says when that means nothing."""
    is_late = np.zeros(len(found.wait_s), dtype=bool)
    for limit, values in ((slo.wait_s, found.wait_s), (slo.ttft_s, found.ttft_s), (slo.e2e_s, found.e2e_s)):
        if limit is not None:
            # NaN is above nothing: neither the refused nor the unknown become late here.
            is_late |= values > limit
    in_time = float(np.mean(~(is_late | found.is_refused)))
    needs_speed = slo.ttft_s is not None or slo.e2e_s is not None
    holds = in_time >= slo.share
    is_unknown = needs_speed and bool(np.isnan(found.e2e_s[~found.is_refused]).any())
    return Measures(
        wait_s=_percentiles(found.wait_s),
        ttft_s=_percentiles(found.ttft_s),
        e2e_s=_percentiles(found.e2e_s),
        share_in_time=in_time,
        share_late=float(np.mean(is_late)),
        share_refused=float(np.mean(found.is_refused)),
        holds_slo=None if holds and is_unknown else holds,
        is_too_slow=bool(np.mean(is_late & (found.wait_s == 0)) > 1 - slo.share),
    )


def _percentiles(values: Floats) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    if not len(known):
        return {f"p{percent}": None for percent in _PERCENTILES}
    return {f"p{percent}": float(value) for percent, value in zip(_PERCENTILES, np.percentile(known, _PERCENTILES), strict=True)}
