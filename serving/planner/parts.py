"""The tensors of a model summed up: all that one layer has in one place and one form is one part, so that a plan takes a few hundred of
them however many thousands of experts there are."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.planner.model_shape import ModelShape
from serving.planner.placement import Place, is_head, is_linear, layer_of, place_of
from serving.planner.tensors import FLOAT_BYTES, Tensor
from serving.planner.weight_format import WeightFormat

_INPUT_FIRST = (".qweight", ".qzeros", ".scales")
"""AWQ's and GPTQ's tensors are [in, out]."""


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


def parts_of(tensors: Sequence[Tensor], shape: ModelShape, computed: WeightFormat | None) -> tuple[Part, ...]:
    """`computed`: what linear layers are made into where the tensors are floats that the checkpoint has not."""
    sums: dict[tuple[Place, int | None, bool, bool, float], list[float]] = {}
    for tensor in tensors:
        place, linear = _place(tensor), is_linear(tensor.name, len(tensor.shape)) and tensor.dtype in FLOAT_BYTES
        rows = tensor.num_elements // tensor.shape[-1] if len(tensor.shape) > 1 else 0
        numbers, fixed, spread = (tensor.num_elements, 0.0, 0.0) if tensor.dtype in FLOAT_BYTES else (0, float(tensor.num_bytes), 0.0)
        module = tensor.name.removesuffix(".weight")
        if linear and computed is not None:
            linear = False
            if computed.quantizes(module, is_expert=place is Place.EXPERTS):
                numbers, fixed, spread = 0, computed.weight_bytes(tensor.num_elements, rows), computed.spread
        layer = layer_of(tensor.name)
        is_last = layer is None and (is_head(tensor.name) or (place is Place.WHOLE and "norm" in tensor.name))
        total = sums.setdefault((place, layer, is_last, linear, spread), [0, 0, 0.0])
        for number, value in enumerate((numbers, rows, fixed)):
            total[number] += value
    return tuple(
        Part(place, layer, is_last, linear, int(numbers), int(rows), fixed, spread)
        for (place, layer, is_last, linear, spread), (numbers, rows, fixed) in sums.items()
    )


def _place(tensor: Tensor) -> Place:
    """Of a scale too: one for each output channel is on every rank where the layer is divided by input."""
    place = place_of(tensor.name, len(tensor.shape))
    if place.is_by_columns and len(tensor.shape) > 1:
        inputs = tensor.shape[0] if tensor.name.endswith(_INPUT_FIRST) else tensor.shape[-1]
        return place if inputs > 1 else Place.WHOLE
    return place
