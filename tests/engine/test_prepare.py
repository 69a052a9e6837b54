"""A prepared checkpoint for real: plain vLLM, without Tokenport's plugin, reads it and says much the same as the 16-bit model."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.engine.cpu import find_cores, openmp_environment
from serving.engine.embedded_model import ensure_model
from serving.engine.prepare.command import prepare
from serving.engine.prepare.quality import Subject, ask
from tests.conftest import settings_in

pytestmark = pytest.mark.engine


def test_plain_vllm_reads_the_prepared_model(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores, libiomp = find_cores(sorted(os.sched_getaffinity(0))), Path(sys.prefix) / "lib" / "libiomp5.so"
    chosen = openmp_environment(cores, 1, libiomp if libiomp.exists() else None, os.environ)
    for name, value in chosen.items() | {("VLLM_PLUGINS", ""), ("TORCH_COMPILE_DISABLE", "1")}:
        monkeypatch.setenv(name, value)
    ensure_model(cache_dir, lambda *_: None)
    prepare(["embedded", str(tmp_path / "out"), "--quantization", "int8"], settings_in(cache_dir), {})
    seen: list[float] = []
    scores, targets = ask(Subject(tmp_path / "out", {}), tmp_path / "scores.npy", seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert np.allclose(np.exp(scores.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)
    perplexity = float(np.exp(-np.take_along_axis(scores, targets[:, None], axis=1).mean()))
    # 17.9 in BF16 (benchmarks/results/quality-smollm2-2026-11-22.json); random or broken layers give thousands.
    assert 17.0 < perplexity < 20.0
