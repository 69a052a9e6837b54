"""Outcomes of which the truth is known: a small tier whose one signal says how probably it is right, and a large one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.cascade.fitting.outcomes import Outcomes
from serving.cascade.policy import Policy
from serving.cascade.request_features import request_features

MESSAGES = ({"role": "user", "content": "What is it?"},)
SIGNALS = np.linspace(0.01, 0.99, 50)
"""The values that the signal takes, each as often."""
SMALL_RIGHT = 1 / (1 + np.exp(-(6 * SIGNALS - 2.2)))
LARGE_RIGHT = 1 / (1 + np.exp(-(2 * SIGNALS + 1.4)))
"""How probably each tier is right where the signal has that value."""
PRICE_RATIO = 0.1


def draw(num: int, seed: int) -> Outcomes:
    """Requests with outcomes drawn from the truth."""
    random = np.random.default_rng(seed)
    place = random.integers(len(SIGNALS), size=num)
    quality = np.stack([random.random(num) < SMALL_RIGHT[place], random.random(num) < LARGE_RIGHT[place]], axis=1)
    return Outcomes(
        messages=(MESSAGES,) * num,
        tiers=("small", "large"),
        quality=quality.astype(float),
        cost=np.tile([PRICE_RATIO, 1.0], (num, 1)),
        signals={"small": {"margin_mean": SIGNALS[place]}, "large": {}},
        sha256=f"seed {seed}",
        assumed_order=False,
    )


def true_quality_ratio(policy: Policy, *, naive: bool = False) -> float:
    """The policy's mean quality by the large tier's, over all requests there could ever be."""
    rule = policy.stages[0].after
    assert rule is not None
    threshold = policy.fitted_on.naive_threshold if naive else rule.threshold
    features = request_features(MESSAGES)
    chances = np.array([rule.chance({**features, "margin_mean": signal}) for signal in SIGNALS])
    is_small = chances >= threshold if threshold is not None else np.zeros(len(SIGNALS), dtype=bool)
    return float(np.where(is_small, SMALL_RIGHT, LARGE_RIGHT).mean() / LARGE_RIGHT.mean())


def line(number: int, outcomes: Mapping[str, Mapping[str, Any]], content: str = "What is it?") -> dict[str, Any]:
    """One line of an outcome file."""
    return {"id": str(number), "messages": [{"role": "user", "content": content}], "outcomes": outcomes}


def write_lines(path: Path, lines: Sequence[Any]) -> Path:
    """A file of JSON lines; what is text already goes in as it is."""
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines))
    return path


def write(path: Path, outcomes: Outcomes) -> Path:
    """Outcomes as a file."""
    lines = []
    for row in range(len(outcomes)):
        by_tier = {
            tier: {
                "quality": outcomes.quality[row, index],
                "cost": outcomes.cost[row, index],
                "signals": {name: float(values[row]) for name, values in outcomes.signals[tier].items()},
            }
            for index, tier in enumerate(outcomes.tiers)
        }
        lines.append(line(row, by_tier))
    return write_lines(path, lines)
