"""The one rule by which a 16-bit weight becomes INT8: symmetric, a scale for each output channel (a row), rounded half to even.

Steps: the largest magnitude of each row, its scale, the row divided by its scale and rounded. Loading and preparing both come here, so that
they give the same bytes. The arithmetic is FP32 and the rule that of compressed-tensors 0.17 (`calculate_qparams` and `quantize`): all 256
steps are used, so that a scale is 1/127.5 of the maximum. Knows nothing of layers, files or ranks.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_MIN, _MAX = -128, 127
_HALF_RANGE = 127.5
_CHUNK_ELEMENTS = 2**22
"""Rows are worked on in groups of about so many elements: the FP32 copy then takes 16 MiB, however large the weight is."""


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """INT8 values in the shape of `weight` [out, in], and FP32 scales [out, 1]: `values * scales` is the weight, within half a scale.

    Raises:
        ValueError: the weight holds an infinity or no number.
    """
    scales = row_scales(row_maxima(weight))
    return round_rows(weight, scales), scales


def row_maxima(weight: Tensor) -> Tensor:
    """The largest magnitude in each row of `weight` [out, in], as FP32 [out, 1]. Of a row that is cut in pieces: the largest of theirs."""
    maxima = torch.empty(weight.shape[0], 1, dtype=torch.float32, device=weight.device)
    for rows in _chunks(weight):
        low, high = torch.aminmax(weight[rows], dim=1, keepdim=True)
        maxima[rows] = torch.maximum(high.float(), -low.float())
    return maxima


def row_scales(maxima: Tensor) -> Tensor:
    """The step of each row, FP32 [out, 1]. A row of zeros gets compressed-tensors' smallest scale, which keeps it zero.

    Raises:
        ValueError: a maximum is infinite or no number.
    """
    if not bool(torch.isfinite(maxima).all()):
        raise ValueError("the weight holds values that are no finite numbers")
    # By a tensor on the same device: CUDA would multiply by the reciprocal of a Python number, which rounds differently.
    scales = maxima / torch.tensor(_HALF_RANGE, dtype=torch.float32, device=maxima.device)
    return torch.where(scales == 0, torch.finfo(torch.float32).eps, scales)


def round_rows(weight: Tensor, scales: Tensor) -> Tensor:
    """`weight` [out, in] in steps of `scales` [out, 1], as INT8."""
    values = torch.empty_like(weight, dtype=torch.int8, memory_format=torch.contiguous_format)
    for rows in _chunks(weight):
        # A copy even of an FP32 weight, since the steps that follow are done in place.
        steps = weight[rows].to(torch.float32, copy=True)
        values[rows] = steps.div_(scales[rows]).round_().clamp_(_MIN, _MAX).to(torch.int8)
    return values


def _chunks(weight: Tensor) -> Iterator[slice]:
    num_rows = max(1, _CHUNK_ELEMENTS // max(1, weight.shape[1]))
    for start in range(0, weight.shape[0], num_rows):
        yield slice(start, start + num_rows)
