"""LoRA's products on the CPU, run by run: neighbouring rows of the batch that have the same adapter are multiplied together.

vLLM 0.32's own take the adapter of every row by index, and a row without one, whose index is -1, by that gets the last adapter in memory:
requests to the base model that share a step with an adapter's are answered by a mixture. They also copy the weights once for every token.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from vllm.lora.punica_wrapper import punica_cpu

_Run = tuple[slice, int]


def register() -> None:
    """Put these in the place of vLLM's."""
    for function in (sgmv_shrink, sgmv_expand, sgmv_expand_slice, bgmv_shrink, bgmv_expand):
        setattr(punica_cpu, function.__name__, function)


def sgmv_shrink(
    x: Tensor,
    weights: Tensor,
    out: Tensor,
    _starts: Tensor,
    lengths: Tensor,
    indices: Tensor,
    _n: int,
    _max: int,
    _tokens: int,
    scale: float,
) -> None:
    """`out = scale * x @ A.T`; rows without an adapter are left as they are."""
    _shrink(x, weights, out, _runs(indices, lengths), scale)


def sgmv_expand(
    x: Tensor,
    weights: Tensor,
    out: Tensor,
    _starts: Tensor,
    lengths: Tensor,
    indices: Tensor,
    _n: int,
    _max: int,
    _tokens: int,
    add_inputs: bool = False,
) -> None:
    """`out (+)= x @ B.T`; rows without an adapter are left as they are."""
    _expand(x, weights, out, _runs(indices, lengths), add_inputs)


def sgmv_expand_slice(
    x: Tensor,
    weights: Tensor,
    out: Tensor,
    _starts: Tensor,
    lengths: Tensor,
    indices: Tensor,
    _n: int,
    _max: int,
    _tokens: int,
    offset: int,
    size: int,
    add_inputs: bool = False,
) -> None:
    """The same for some columns of `out`."""
    _expand(x, weights, out[:, offset : offset + size], _runs(indices, lengths), add_inputs)


def bgmv_shrink(x: Tensor, weights: Tensor, out: Tensor, indices: Tensor, scale: float = 1.0) -> None:
    """`sgmv_shrink` with an index for every row."""
    _shrink(x, weights, out, _runs(*torch.unique_consecutive(indices, return_counts=True)), scale)


def bgmv_expand(x: Tensor, weights: Tensor, out: Tensor, indices: Tensor, add_inputs: bool = True) -> None:
    """`sgmv_expand` with an index for every row."""
    _expand(x, weights, out, _runs(*torch.unique_consecutive(indices, return_counts=True)), add_inputs)


def _runs(indices: Tensor, lengths: Tensor) -> Iterator[_Run]:
    """Rows and adapter of each run that has one."""
    start = 0
    for index, length in zip(indices.tolist(), lengths.tolist(), strict=True):
        if index >= 0:
            yield slice(start, start + length), index
        start += length


def _shrink(x: Tensor, weights: Tensor, out: Tensor, runs: Iterator[_Run], scale: float) -> None:
    for rows, index in runs:
        product = x[rows].to(out.dtype) @ _matrix(weights, index, out.dtype)
        out[rows, : product.shape[1]] = scale * product


def _expand(x: Tensor, weights: Tensor, out: Tensor, runs: Iterator[_Run], add_inputs: bool) -> None:
    for rows, index in runs:
        product = x[rows].to(out.dtype) @ _matrix(weights, index, out.dtype)
        # The adapter's and the model's output may be padded differently.
        num_columns = min(product.shape[1], out.shape[1])
        target = out[rows, :num_columns]
        if add_inputs:
            target += product[:, :num_columns]
        else:
            target.copy_(product[:, :num_columns])


def _matrix(weights: Tensor, index: int, dtype: torch.dtype) -> Tensor:
    """The transposed weights in one place of the stack."""
    return weights[index].reshape(weights.shape[-2:]).to(dtype).T
