"""The two charts of a ranking's page, as SVG trees: the memory of one GPU, and latency against cost. Colours are the page's."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from serving.planner.plan import PARTS, PerGpu
from serving.planner.ranking.ranking import Candidate

_GIB = 2**30
_WIDTH = 480
_BAR_HEIGHT, _LINE_HEIGHT = 22, 18
_PLOT_HEIGHT, _LEFT, _BOTTOM, _MARGIN = 320, 50, 40, 14


def memory_bar(per_gpu: PerGpu) -> Element:
    """The parts beside each other on the width of what torch sees, and what each is."""
    height = _BAR_HEIGHT + _LINE_HEIGHT * len(PARTS) + 8
    svg = _svg(height, "memory of the fullest GPU")
    usable = per_gpu.usable_bytes.estimate
    full = max(usable, per_gpu.total_bytes.estimate)
    _shape(svg, "rect", {"x": 0, "y": 0, "width": _WIDTH * usable / full, "height": _BAR_HEIGHT, "style": "fill: var(--free)"})
    left = 0.0
    for index, (title, name) in enumerate(PARTS.items()):
        interval = getattr(per_gpu, name)
        width = _WIDTH * interval.estimate / full
        colour = f"fill: var(--part-{index})"
        _shape(svg, "rect", {"x": left, "y": 0, "width": width, "height": _BAR_HEIGHT, "style": colour})
        left += width
        line = _BAR_HEIGHT + _LINE_HEIGHT * (index + 1)
        _shape(svg, "rect", {"x": 0, "y": line - 10, "width": 10, "height": 10, "style": colour})
        ends = f"{interval.estimate / _GIB:.2f} GiB ({interval.low / _GIB:.2f} to {interval.high / _GIB:.2f})"
        _shape(svg, "text", {"x": 18, "y": line}).text = f"{title} {ends}"
    _shape(svg, "text", {"x": _WIDTH, "y": _BAR_HEIGHT + _LINE_HEIGHT, "text-anchor": "end"}).text = f"of {usable / _GIB:.1f} GiB usable"
    return svg


def frontier(candidates: Sequence[Candidate]) -> Element:
    """Each candidate by its time per output token and its cost, both axes logarithmic; with the ends of its time. All have both."""
    svg = _svg(_PLOT_HEIGHT, "time per output token against cost")
    points = [
        (found.speed.tpot_s.times(1000), price.estimate)
        for one in candidates
        if (found := one.operation) and (price := found.usd_per_million_output_tokens)
    ]
    x_axis = _Axis([end for time, _ in points for end in (time.low, time.high)], _LEFT, _WIDTH - _MARGIN)
    y_axis = _Axis([usd for _, usd in points], _PLOT_HEIGHT - _BOTTOM, _MARGIN)
    _draw_axes(svg, x_axis, y_axis)
    best = _undominated([(time.estimate, usd) for time, usd in points])
    path = " ".join(f"{x_axis.place(time):.1f},{y_axis.place(usd):.1f}" for time, usd in best)
    _shape(svg, "polyline", {"points": path, "style": "fill: none; stroke: var(--part-0); stroke-width: 1.5"})
    for candidate, (spread, cost) in zip(candidates, points, strict=True):
        y, is_kept = y_axis.place(cost), not candidate.reasons
        ends = {"x1": x_axis.place(spread.low), "x2": x_axis.place(spread.high), "y1": y, "y2": y}
        _shape(svg, "line", {**ends, "style": "stroke: var(--quiet); stroke-opacity: .35"})
        style = f"stroke: var(--part-0); fill: {'var(--part-0)' if is_kept else 'var(--ground)'}"
        dot = _shape(svg, "circle", {"cx": x_axis.place(spread.estimate), "cy": y, "r": 4, "style": style})
        way = f"{candidate.instance.name}, {candidate.quantization or 'as it is'}, TP {candidate.num_ranks}"
        SubElement(dot, "title").text = f"{way}: {spread.estimate:.3g} ms, {cost:.2f} USD per million output tokens"
    return svg


class _Axis:
    """Logarithmic, over whole decades' 1, 2 and 5."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 2)
        steps = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        self.low = max(step for step in steps if step <= min(values))
        self.high = min(step for step in steps if step >= max(values) and step > self.low)
        self.ticks = [step for step in steps if self.low <= step <= self.high]
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        """In the picture."""
        return self._start + (self._end - self._start) * math.log(value / self.low) / math.log(self.high / self.low)


def _draw_axes(svg: Element, x_axis: _Axis, y_axis: _Axis) -> None:
    floor, line = _PLOT_HEIGHT - _BOTTOM, "stroke: var(--line)"
    for tick in x_axis.ticks:
        x = x_axis.place(tick)
        _shape(svg, "line", {"x1": x, "x2": x, "y1": _MARGIN, "y2": floor, "style": line})
        _shape(svg, "text", {"x": x, "y": floor + 16, "text-anchor": "middle"}).text = f"{tick:g}"
    for tick in y_axis.ticks:
        y = y_axis.place(tick)
        _shape(svg, "line", {"x1": _LEFT, "x2": _WIDTH - _MARGIN, "y1": y, "y2": y, "style": line})
        _shape(svg, "text", {"x": _LEFT - 8, "y": y + 4, "text-anchor": "end"}).text = f"{tick:g}"
    _shape(svg, "text", {"x": _WIDTH - _MARGIN, "y": _PLOT_HEIGHT - 6, "text-anchor": "end"}).text = "TPOT, ms"
    _shape(svg, "text", {"x": 4, "y": _PLOT_HEIGHT - 6}).text = "up: USD per million output tokens"


def _undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of which no other is both faster and cheaper, the fastest first."""
    best: list[tuple[float, float]] = []
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best


def _svg(height: float, title: str) -> Element:
    return Element("svg", {"viewBox": f"0 0 {_WIDTH} {height:g}", "role": "img", "aria-label": title})


def _shape(parent: Element, name: str, attributes: dict[str, str | float]) -> Element:
    texts = {key: value if isinstance(value, str) else f"{value:.1f}" for key, value in attributes.items()}
    return SubElement(parent, name, texts)
