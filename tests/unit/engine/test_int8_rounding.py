"""The rounding of weights to INT8 against its definition, and against the package whose checkpoints must hold the same bytes."""

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given
from hypothesis import strategies as st

from serving.engine import int8_rounding
from serving.engine.int8_rounding import quantize_rows, round_rows, row_maxima, row_scales

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def weight(num_out: int, num_in: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    """Rows of very different sizes, as trained ones are."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-3, 2, num_out)[:, None]
    return (torch.randn(num_out, num_in, generator=generator) * sizes).to(dtype)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_every_value_is_within_half_a_step(num_out, num_in, dtype, seed):
    original = weight(num_out, num_in, dtype, seed)
    values, scales = quantize_rows(original)
    assert (values.dtype, scales.dtype) == (torch.int8, torch.float32)
    assert (values.shape, scales.shape) == (original.shape, (num_out, 1))
    error = (values.double() * scales.double() - original.double()).abs()
    assert (error <= scales.double() * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_and_scales_are_those_of_compressed_tensors(dtype):
    original = weight(300, 70, dtype).float()
    scheme = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    scales, zero_points = calculate_qparams(original.amin(1, keepdim=True), original.amax(1, keepdim=True), scheme)
    theirs = quantize(original, scales, zero_points, scheme, dtype=torch.int8)
    values, our_scales = quantize_rows(original.to(dtype))
    assert torch.equal(our_scales, scales)
    assert torch.equal(values, theirs)


def test_a_row_of_zeros_stays_zero():
    original = weight(4, 8)
    original[2] = 0
    values, scales = quantize_rows(original)
    assert not values[2].any()
    assert 0 < scales[2] < 1e-6
    assert values[[0, 1, 3]].any(dim=1).all()


def test_the_whole_range_of_int8_is_used():
    values, _ = quantize_rows(torch.tensor([[-3.0, 0.0, 3.0]]))
    assert values.tolist() == [[-128, 0, 127]]


@pytest.mark.parametrize("elements", [1, 70, 71, 1000])
def test_the_size_of_the_groups_of_rows_does_not_matter(monkeypatch, elements):
    original = weight(33, 70)
    whole = quantize_rows(original)
    monkeypatch.setattr(int8_rounding, "_CHUNK_ELEMENTS", elements)
    for grouped, expected in zip(quantize_rows(original), whole, strict=True):
        assert torch.equal(grouped, expected)


def test_the_weight_is_not_changed_nor_need_it_be_contiguous():
    original = weight(12, 30, torch.float32)
    kept = original.clone()
    transposed, scales = quantize_rows(original.T)
    assert torch.equal(original, kept)
    again, same_scales = quantize_rows(original.T.contiguous())
    assert torch.equal(transposed, again)
    assert torch.equal(scales, same_scales)
    assert transposed.is_contiguous()


def test_pieces_of_rows_rounded_by_the_maxima_of_all_are_the_whole():
    original = weight(9, 64)
    left, right = original.chunk(2, dim=1)
    scales = row_scales(torch.maximum(row_maxima(left), row_maxima(right)))
    values, whole_scales = quantize_rows(original)
    assert torch.equal(scales, whole_scales)
    assert torch.equal(torch.cat([round_rows(left, scales), round_rows(right, scales)], dim=1), values)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_finite_number_is_refused(value):
    original = weight(3, 5)
    original[1, 2] = value
    with pytest.raises(ValueError, match="no finite numbers"):
        quantize_rows(original)
