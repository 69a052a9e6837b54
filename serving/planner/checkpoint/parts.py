"""The tensors of a model summed up: all that one layer has in one place and one form is one part, so that a plan takes a few hundred of
them however many thousands of experts there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from serving.planner.checkpoint.placement import Place, is_head, is_linear, layer_of, place_of
from serving.planner.checkpoint.tensors import Tensor
from serving.planner.memory.weight_format import WeightFormat

_SCALES = ("_scale", "_scale_inv", "scales", "absmax")
"""Endings of what a quantised layer has beside its weight: floats that stay as they are."""
_INPUT_FIRST = ("scales", "qzeros")
"""AWQ's and GPTQ's are [in, out]."""


@dataclass(frozen=True)
class Part:
    """`layer`: of the decoder; None for what is beside, which the last stage holds if `is_last`, else the first. `numbers` in floats, in
    `rows` rows; `fixed_bytes`: of types that stay as they are. `can_quantize`: linear layers. `spread`: see `WeightFormat`."""

    place: Place
    layer: int | None
    is_last: bool
    can_quantize: bool
    numbers: int
    rows: int
    fixed_bytes: float
    spread: float = 0.0


def parts_of(tensors: Sequence[Tensor], computed: WeightFormat | None) -> tuple[Part, ...]:
    """`computed`: what linear layers are made into where the tensors are floats that the checkpoint has not."""
    sums: dict[Part, Part] = {}
    for tensor in tensors:
        part = _part_of(tensor, computed)
        kind = replace(part, numbers=0, rows=0, fixed_bytes=0)
        known = sums.get(kind, kind)
        sums[kind] = replace(
            kind,
            numbers=known.numbers + part.numbers,
            rows=known.rows + part.rows,
            fixed_bytes=known.fixed_bytes + part.fixed_bytes,
        )
    return tuple(sums.values())


def _part_of(tensor: Tensor, computed: WeightFormat | None) -> Part:
    name, num_dimensions = tensor.name, len(tensor.shape)
    layer, place = layer_of(name), _place(tensor)
    is_last = layer is None and (is_head(name) or (place is Place.WHOLE and "norm" in name))
    part = Part(place, layer, is_last, can_quantize=False, numbers=0, rows=0, fixed_bytes=0)
    if not tensor.is_float or name.endswith(_SCALES):
        return replace(part, fixed_bytes=tensor.num_bytes)
    rows = math.prod(tensor.shape[:-1]) if num_dimensions > 1 else 0
    linear = is_linear(name, num_dimensions)
    if computed is None or not linear or not computed.quantizes(name.removesuffix(".weight"), is_expert=place is Place.EXPERTS):
        return replace(part, can_quantize=linear and computed is None, numbers=tensor.num_elements, rows=rows)
    return replace(part, fixed_bytes=computed.weight_bytes(tensor.num_elements, rows), spread=computed.spread)


def _place(tensor: Tensor) -> Place:
    """Of a scale too: where a layer is divided by input, one for each output channel is on every rank."""
    place = place_of(tensor.name, len(tensor.shape))
    if not place.is_by_columns or not tensor.name.endswith(_SCALES) or not tensor.shape:
        return place
    inputs = tensor.shape[0] if tensor.name.endswith(_INPUT_FIRST) else tensor.shape[-1]
    return place if inputs > 1 else Place.WHOLE
