"""What the quality figures mean, on distributions small enough to compute by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from serving.engine.prepare import quality
from serving.engine.prepare.quality import Subject, compare
from serving.errors import ModelUnavailable


@pytest.fixture
def subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[float]]]:
    """Two folders whose models give the probabilities that a test puts here, by folder name."""
    probabilities: dict[str, list[list[float]]] = {}

    def run_module(_module: str, spec: dict[str, str], **_: object) -> None:
        rows = probabilities[Path(spec["model"]).name]
        np.save(spec["out"], np.log(np.array(rows, dtype=np.float32)))
        np.save(Path(spec["out"]).with_suffix(".targets.npy"), np.zeros(len(rows), dtype=np.int64))

    monkeypatch.setattr(quality, "run_module", run_module)
    for name in ("exact", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"vocab_size": 2}')
    return probabilities


def ask(tmp_path: Path) -> quality.Quality:
    return compare(Subject(tmp_path / "exact", {}), Subject(tmp_path / "other", {}), tmp_path, lambda *_: None)


def test_a_model_does_not_diverge_from_itself(subjects: dict[str, list[list[float]]], tmp_path: Path) -> None:
    subjects["exact"] = subjects["other"] = [[0.5, 0.5], [0.25, 0.75]]
    found = ask(tmp_path)
    assert (found.kl_mean, found.kl_max, found.top1_agreement, found.num_tokens) == (0.0, 0.0, 1.0, 2)
    # The targets are word 0: two tokens of probability 1/2 and 1/4.
    assert found.perplexity == found.perplexity_reference == pytest.approx(math.sqrt(8))


def test_the_divergence_is_the_references_expectation_in_nats(subjects: dict[str, list[list[float]]], tmp_path: Path) -> None:
    subjects["exact"] = [[0.5, 0.5], [0.9, 0.1]]
    subjects["other"] = [[0.25, 0.75], [0.4, 0.6]]
    found = ask(tmp_path)
    first = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    second = 0.9 * math.log(9 / 4) + 0.1 * math.log(1 / 6)
    assert found.kl_mean == pytest.approx((first + second) / 2, rel=1e-5)
    assert found.kl_max == pytest.approx(second, rel=1e-5)
    # Word 0 is the exact model's first choice in both (of equals the first), word 1 the other's.
    assert found.top1_agreement == 0.0
    assert found.perplexity == pytest.approx(math.sqrt(4 / 0.4), rel=1e-5)


def test_models_of_other_vocabularies_are_not_compared(subjects: dict[str, list[list[float]]], tmp_path: Path) -> None:
    subjects["exact"], subjects["other"] = [[0.5, 0.5]], [[0.2, 0.3, 0.5]]
    with pytest.raises(ModelUnavailable, match="do not split text alike"):
        ask(tmp_path)


def test_a_model_that_does_not_run_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")

    monkeypatch.setattr(quality, "run_module", lambda *_, **__: "ValueError: no kernel for this")
    with pytest.raises(ModelUnavailable, match="does not run through vllm: ValueError: no kernel for this"):
        compare(Subject(tmp_path, {}), Subject(tmp_path, {}), tmp_path, lambda *_: None)


def test_no_room_for_the_log_probabilities_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10**12}))
    with pytest.raises(ModelUnavailable, match=r"needs 32768000\.0 GB to measure quality"):
        compare(Subject(tmp_path, {}), Subject(tmp_path, {}), tmp_path, lambda *_: None)
