"""Splits attention heads and MLP over any number of ranks, with zeros where they do not divide: pure arithmetic.

The engine gives every rank as many KV heads as the others, or copies a KV head to as many ranks as every other; each KV head serves as
many query heads as every other. A plan therefore has KV slots of equal numbers of query places. An original KV head takes one slot, or
several where its query heads are spread over them; what stays empty is zero, which adds nothing to the sum that attention's output is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.planner.model_shape import ModelShape

MLP_MULTIPLE = 16
"""What a padded MLP has on each rank is a multiple of this. CUTLASS's INT8 and FP8 kernels need both dimensions of a weight to be one
(`cutlass_scaled_mm` in vllm/_custom_ops.py takes a slower kernel otherwise); oneDNN takes any."""
EMPTY = -1
"""In place of an original head: zeros."""


@dataclass(frozen=True)
class Precision:
    """Bytes of one number: in a linear layer's weight, and in the KV cache."""

    weight_bytes: float = 2.0
    kv_bytes: float = 2.0


@dataclass(frozen=True)
class Sharding:
    """How `shape` is split over `num_ranks`. `num_kv_slots` and `heads_per_slot` are what the engine is told to be KV heads and query heads
    a KV head; each original KV head is in `slots_per_kv` slots. `intermediate_size` is the MLP's."""

    shape: ModelShape
    num_ranks: int
    num_kv_slots: int
    heads_per_slot: int
    slots_per_kv: int
    intermediate_size: int

    @property
    def num_heads(self) -> int:
        """Query heads, empty ones included."""
        return self.num_kv_slots * self.heads_per_slot

    @property
    def is_padded(self) -> bool:
        """Whether the engine must be told other sizes than the checkpoint's."""
        has = (self.num_heads, self.num_kv_slots, self.intermediate_size)
        return has != (self.shape.num_heads, self.shape.num_kv_heads, self.shape.intermediate_size)

    @property
    def num_kv_held(self) -> int:
        """KV heads that all ranks together hold: where there are fewer slots than ranks, the engine copies each to several."""
        return max(self.num_kv_slots, self.num_ranks)

    def kv_sources(self) -> list[int]:
        """For each slot the original KV head in it, or EMPTY."""
        used = [slot // self.slots_per_kv for slot in range(self.shape.num_kv_heads * self.slots_per_kv)]
        return used + [EMPTY] * (self.num_kv_slots - len(used))

    def query_sources(self) -> list[int]:
        """For each query place, slot by slot, the original query head in it, or EMPTY."""
        group = self.shape.heads_per_kv
        sources = []
        for slot, kv_head in enumerate(self.kv_sources()):
            first = slot % self.slots_per_kv * self.heads_per_slot
            places = range(first, first + self.heads_per_slot)
            sources += [kv_head * group + place if kv_head != EMPTY and place < group else EMPTY for place in places]
        return sources

    def weight_bytes(self, precision: Precision) -> float:
        """Of attention's and the MLP's linear layers, on all ranks together."""
        attention = 2 * (self.num_heads + self.num_kv_held) * self.shape.head_dim
        mlp = 3 * self.intermediate_size
        return (attention + mlp) * self.shape.hidden_size * self.shape.num_layers * precision.weight_bytes

    def kv_bytes_per_token(self, precision: Precision) -> float:
        """Of the KV cache, on all ranks together."""
        return 2 * self.num_kv_held * self.shape.head_dim * self.shape.num_layers * precision.kv_bytes

    def added_bytes(self, precision: Precision) -> tuple[float, float]:
        """What the split costs on all ranks together, against one device: bytes of weights, and of KV cache a token."""
        whole = unsplit(self.shape)
        return (
            self.weight_bytes(precision) - whole.weight_bytes(precision),
            self.kv_bytes_per_token(precision) - whole.kv_bytes_per_token(precision),
        )


def unsplit(shape: ModelShape) -> Sharding:
    """The model on one device."""
    return Sharding(shape, 1, shape.num_kv_heads, shape.heads_per_kv, 1, shape.intermediate_size)


def divides(shape: ModelShape, num_ranks: int) -> bool:
    """Whether the model can be split as it is."""
    return shape.num_heads % num_ranks == 0 and are_valid_slots(shape.num_kv_heads, num_ranks) and shape.intermediate_size % num_ranks == 0


def are_valid_slots(num_kv_slots: int, num_ranks: int) -> bool:
    """vLLM's rule: KV heads are divided among the ranks, or, if there are fewer of them, copied to an equal number of ranks each."""
    return num_kv_slots % num_ranks == 0 or (num_ranks > num_kv_slots and num_ranks % num_kv_slots == 0)


def plan(shape: ModelShape, num_ranks: int, *, num_tokens: int) -> Sharding:
    """The split that takes the fewest bytes with `num_tokens` tokens in the KV cache, in 16 bits; of equals the one with the fewest query
    places."""
    precision = Precision()

    def cost(sharding: Sharding) -> tuple[float, int, int]:
        total = sharding.weight_bytes(precision) + num_tokens * sharding.kv_bytes_per_token(precision)
        return total, sharding.num_heads, sharding.slots_per_kv

    return min(_candidates(shape, num_ranks), key=cost)


def _candidates(shape: ModelShape, num_ranks: int) -> Iterator[Sharding]:
    """Every number of slots an original KV head may take, with every number of slots worth having, and the fewest query places in each."""
    mlp = _padded_mlp(shape.intermediate_size, num_ranks)
    group = shape.heads_per_kv
    for slots_per_kv in range(1, group + 1):
        fewest = shape.num_kv_heads * slots_per_kv
        for num_slots in range(fewest, fewest + num_ranks):
            if are_valid_slots(num_slots, num_ranks):
                heads_per_slot = -(-group // slots_per_kv)
                while num_slots * heads_per_slot % num_ranks:
                    heads_per_slot += 1
                yield Sharding(shape, num_ranks, num_slots, heads_per_slot, slots_per_kv, mlp)


def _padded_mlp(size: int, num_ranks: int) -> int:
    if size % num_ranks == 0:
        return size
    multiple = MLP_MULTIPLE * num_ranks
    return -(-size // multiple) * multiple
