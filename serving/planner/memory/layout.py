"""How a model lies over its ranks: the share of each tensor that one rank holds, and the layers of each pipeline stage."""

import math
from dataclasses import dataclass
from fractions import Fraction

from serving.planner.checkpoint.placement import Place
from serving.planner.sharding import Sharding

_VOCABULARY_MULTIPLE = 64
"""vLLM fills the vocabulary up to a multiple of it (`DEFAULT_VOCAB_PADDING_SIZE`), and Tokenport to one that the ranks divide too."""


@dataclass(frozen=True)
class Layout:
    """`sharding` over the tensor parallel ranks of a stage; `num_replicas` share a mixture's experts among all their ranks, as slices of
    each or, with `has_expert_parallel`, whole."""

    sharding: Sharding
    num_stages: int = 1
    num_replicas: int = 1
    has_expert_parallel: bool = False

    @property
    def num_ranks(self) -> int:
        """Of a replica."""
        return self.sharding.num_ranks * self.num_stages

    @property
    def stage_layers(self) -> list[range]:
        """The decoder layers of each stage: what is over goes to those before the last, the first of them last (`get_pp_indices` in
        vllm/distributed/utils.py)."""
        each, over = divmod(self.sharding.shape.num_layers, self.num_stages)
        sizes = [each] * self.num_stages
        for place in range(2, over + 2):
            sizes[-place] += 1
        ends = [sum(sizes[: number + 1]) for number in range(self.num_stages)]
        return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]

    def share(self, place: Place) -> Fraction:
        """Of a tensor at `place`, what one rank holds; more than an equal part where zeros fill it up or heads are copied."""
        sharding, shape, ranks = self.sharding, self.sharding.shape, self.sharding.num_ranks
        match place:
            case Place.ROWS_QUERY | Place.COLUMNS_QUERY:
                return Fraction(sharding.num_heads, shape.num_heads * ranks)
            case Place.ROWS_KV:
                return Fraction(sharding.num_kv_held, shape.num_kv_heads * ranks)
            case Place.ROWS_QKV:
                return Fraction(sharding.num_heads + 2 * sharding.num_kv_held, (shape.num_heads + 2 * shape.num_kv_heads) * ranks)
            case Place.ROWS_MLP | Place.COLUMNS_MLP:
                return Fraction(sharding.intermediate_size, shape.intermediate_size * ranks)
            case Place.EXPERTS:
                return self._share_of_experts()
            case Place.VOCABULARY:
                multiple = math.lcm(_VOCABULARY_MULTIPLE, ranks)
                return Fraction(-(-shape.vocab_size // multiple) * multiple, shape.vocab_size * ranks)
            case Place.WHOLE | Place.TOWER | Place.UNKNOWN:
                return Fraction(1)

    def _share_of_experts(self) -> Fraction:
        ranks, experts = self.sharding.num_ranks * self.num_replicas, self.sharding.shape.num_experts
        return Fraction(-(-experts // ranks), experts) if self.has_expert_parallel else Fraction(1, ranks)
