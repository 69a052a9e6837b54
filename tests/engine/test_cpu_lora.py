"""LoRA's products on the CPU against the definition, row by row."""

import pytest
import torch

from serving.engine import cpu_lora

pytestmark = pytest.mark.engine

ROWS = [-1, -1, 0, 0, 2, -1, 1, 1, 1, -1]
RANK, NUM_IN, NUM_OUT = 4, 6, 10


@pytest.fixture
def runs() -> tuple:
    indices, lengths = torch.unique_consecutive(torch.tensor(ROWS), return_counts=True)
    return torch.zeros(0), lengths, indices, len(indices), int(lengths.max()), len(ROWS)


@pytest.fixture
def stack() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(len(ROWS), NUM_IN), torch.randn(3, 1, RANK, NUM_IN), torch.randn(3, 1, NUM_OUT, RANK)


def expected(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    rows = [x[row] @ weights[index, 0].T if index >= 0 else torch.zeros(weights.shape[2]) for row, index in enumerate(ROWS)]
    return torch.stack(rows)


def test_a_row_is_multiplied_by_its_own_adapter_and_one_without_by_none(runs, stack):
    x, a, b = stack
    small = torch.zeros(len(ROWS), RANK)
    cpu_lora.sgmv_shrink(x, a, small, *runs, 0.5)
    torch.testing.assert_close(small, 0.5 * expected(x, a))
    out = torch.ones(len(ROWS), NUM_OUT)
    cpu_lora.sgmv_expand(small, b, out, *runs, True)
    torch.testing.assert_close(out, 1 + expected(small, b))


def test_columns_outside_of_a_slice_are_left_alone(runs, stack):
    x, a, _ = stack
    out = torch.ones(len(ROWS), NUM_OUT)
    cpu_lora.sgmv_expand_slice(x, a, out, *runs, 3, RANK, True)
    torch.testing.assert_close(out[:, 3 : 3 + RANK], 1 + expected(x, a))
    assert torch.all(out[:, :3] == 1)
    assert torch.all(out[:, 3 + RANK :] == 1)


def test_an_index_for_every_row_means_the_same(stack):
    x, a, b = stack
    small = torch.zeros(len(ROWS), RANK)
    cpu_lora.bgmv_shrink(x, a, small, torch.tensor(ROWS), 1.0)
    torch.testing.assert_close(small, expected(x, a))
    out = torch.full((len(ROWS), NUM_OUT), 7.0)
    cpu_lora.bgmv_expand(small, b, out, torch.tensor(ROWS), add_inputs=False)
    without = torch.tensor(ROWS) < 0
    assert torch.all(out[without] == 7)
    torch.testing.assert_close(out[~without], expected(small, b)[~without])


def test_vllms_own_kernels_still_give_base_rows_to_the_last_adapter(stack):
    """When this fails, vLLM has mended it, and `cpu_lora.py` is to be looked at again: it may only be faster."""
    from vllm.lora.ops.torch_ops import bgmv_shrink

    x, a, _ = stack
    small = torch.zeros(len(ROWS), RANK)
    bgmv_shrink(x, a, small, torch.tensor(ROWS), 1.0)
    torch.testing.assert_close(small[0], x[0] @ a[2, 0].T)


def test_the_plugin_has_put_them_in_the_place_of_vllms():
    from vllm.lora.punica_wrapper import punica_cpu

    from serving.engine.plugin import register

    register()
    for name in ("sgmv_shrink", "sgmv_expand", "sgmv_expand_slice", "bgmv_shrink", "bgmv_expand"):
        assert getattr(punica_cpu, name) is getattr(cpu_lora, name)
