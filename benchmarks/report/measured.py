"""One side of a comparison: what its documents hold of each load, and the samples from which a difference gets its interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from benchmarks.measuring.record import Record
from benchmarks.measuring.slo import Slo
from benchmarks.measuring.window import Window
from benchmarks.report.figures import RATES, every_number, of_load, of_machine
from benchmarks.report.samples import due_in, latencies_of, records_of, token_times, window_of
from benchmarks.report.uncertainty import Array, Resampled, num_blocks
from benchmarks.report.verdict import runs_by_load

WITH_LOAD = ("throughput", "latency")
"""Kinds of results whose runs have requests, and the metrics of load."""

Document = Mapping[str, Any]
Figures = dict[str, float | None]


@dataclass
class Load:
    """What one document has of one load: its repeats, and their figures taken together."""

    document: Document
    runs: Sequence[Mapping[str, Any]]
    figures: Figures
    seed: int
    repeats: list[Figures] = field(default_factory=list)
    _resampled: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def _requests(self) -> list[tuple[list[Record], Window]]:
        found = [(records_of(self.document, run), run) for run in self.runs]
        return [(records, window_of(run, records)) for records, run in found if records]

    @cached_property
    def _due(self) -> list[Record]:
        return [record for records, window in self._requests for record in due_in(records, window)]

    @cached_property
    def _slo(self) -> Slo:
        return Slo(**self.runs[0]["metrics"]["goodput"]["slo"])

    def resampled(self, name: str) -> Any | None:
        """A figure such as `ttft_s.p99`, or a share of the requests, in each resample; None where there are no requests to draw from."""
        group, _, figure = name.partition(".")
        if len(self._due) < 2:
            return None
        if group not in self._resampled:
            samples = self._samples_of(group)
            wanted = [key.partition(".")[2] for key in self.figures if key.startswith(f"{group}.") and self.figures[key] is not None]
            self._resampled[group] = Resampled(samples, self.seed).figures(wanted if group.endswith("_s") else ["mean"])
        return self._resampled[group].get(figure if group.endswith("_s") else "mean")

    def num_samples(self, name: str) -> int:
        """Samples of a latency in the window."""
        return sum(map(len, self._samples_of(name.partition(".")[0])))

    def _samples_of(self, group: str) -> list[list[float]]:
        if group == "failed_share":
            return [[float(not record.is_whole)] for record in self._due]
        if group == "goodput":
            return [[float(self._slo.is_kept_by(record))] for record in self._due]
        return [latencies_of(record, group) for record in self._due]

    def blocks(self, name: str) -> list[float]:
        """A rate in each of the blocks that the windows are cut into."""
        amounts: Mapping[str, Callable[[Sequence[Record], Array], Array]] = {
            "output_tokens_per_s": partial(_arrived, counted=token_times),
            "total_tokens_per_s": partial(_arrived, counted=_all_tokens),
            "requests_per_s": partial(_answered, counts=lambda record: record.is_whole),
            "goodput.requests_per_s": partial(_answered, counts=lambda record: self._slo.is_kept_by(record)),
        }
        found: list[float] = []
        for records, window in self._requests:
            edges = _edges(records, window)
            if len(edges) > 1:
                found += [float(rate) for rate in amounts[name](records, edges) / np.diff(edges)]
        return found


def loads_of(document: Document, seed: int) -> dict[str, Load]:
    """Name of each load -> what the document has of it. A kind without load has one, of all its figures."""
    if document["kind"] not in WITH_LOAD:
        return _without_load(document, seed)
    by_load = runs_by_load(document)
    found = {}
    for name, runs in by_load.items():
        repeats = [of_load(run["metrics"]) for run in runs]
        is_whole = document["kind"] == "throughput" and len(by_load) == 1
        figures = of_load(document["metrics"]) | of_machine(document) if is_whole else _mean_of(repeats)
        found[name] = Load(document, runs, figures, seed, repeats)
    return found


def _without_load(document: Document, seed: int) -> dict[str, Load]:
    """Of the other kinds: all figures of the metrics, and runs either as their repeats or, where they are none, each by its label."""
    told = [(run, run.get("load") or {}) for run in document["runs"]]
    runs = [run for run, load in told if not load.get("is_warm_up") and load.get("server") == told[0][1].get("server")]
    of_runs = [_figures(run["metrics"]) for run in runs]
    are_repeats = len({run.get("repeat") for run in runs}) == len(runs)
    figures = _figures(document["metrics"])
    # A run has plainly what the metrics have the mean of.
    repeats = [{name: found.get(name.removesuffix(".mean")) for name in figures} for found in of_runs] if are_repeats else []
    loads = {"": Load(document, runs, figures, seed, repeats)}
    if not are_repeats:
        loads |= {str(run.get("label")): Load(document, [run], found, seed) for run, found in zip(runs, of_runs, strict=True)}
    return loads


def _figures(metrics: Mapping[str, Any]) -> Figures:
    return {name: value for name, value in every_number(metrics).items() if not name.endswith((".min", ".max", ".num_samples"))}


def can_be_cut(name: str) -> bool:
    """Whether a figure is a rate that blocks of the window have too."""
    return name in (*RATES, "goodput.requests_per_s")


def _mean_of(repeats: Sequence[Figures]) -> Figures:
    known = {name: [repeat.get(name) for repeat in repeats] for name in repeats[0]}
    return {name: None if None in values else float(np.mean(np.asarray(values, dtype=float))) for name, values in known.items()}


def _all_tokens(record: Record) -> tuple[Sequence[float], Sequence[float]]:
    times, counts = token_times(record)
    prompt = float(record.prompt_tokens or 0) if times else 0.0
    return ([times[0], *times], [prompt, *counts]) if times else ([], [])


def _edges(records: Sequence[Record], window: Window) -> Array:
    """Between the blocks; none where the window holds not one answer's time."""
    lengths = [record.ended_s - record.scheduled_s for record in records if record.is_whole and record.ended_s is not None]
    num = num_blocks(window.length_s, float(np.mean(lengths)) if lengths else 0.0)
    return np.linspace(window.start_s, window.end_s, num + 1) if num else np.zeros(0)


def _arrived(records: Sequence[Record], edges: Array, counted: Callable[[Record], tuple[Sequence[float], Sequence[float]]]) -> Array:
    found = [counted(record) for record in records]
    times, counts = np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])
    return np.asarray(np.histogram(times, bins=edges, weights=counts)[0], dtype=np.float64)


def _answered(records: Sequence[Record], edges: Array, counts: Callable[[Record], bool]) -> Array:
    """Answers, each by the share of its time that lies in a block, as the rate of the whole window counts them."""
    spans = [
        (record.sent_s, record.ended_s) for record in records if record.sent_s is not None and record.ended_s is not None and counts(record)
    ]
    starts, ends = np.asarray(spans, dtype=np.float64).reshape(-1, 2).T
    done = (edges - starts[:, None]) / np.maximum(ends - starts, 1e-9)[:, None]
    return np.asarray(np.diff(np.clip(done, 0, 1).sum(axis=0)), dtype=np.float64)
