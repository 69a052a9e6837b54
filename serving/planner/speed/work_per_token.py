"""What a decoder makes a machine do for a token: FLOPs, and how many of its experts a step reads.

From the shape alone, so that it can be said of a model that nobody has loaded. Two FLOPs for each weight in a matrix product (PaLM,
https://arxiv.org/abs/2204.02311 appendix B), and attention's over the tokens before. Knows no bytes and no machine.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkPerToken:
    """Numbers of weights in matrix products that one token goes through, the vocabulary's apart; `attention_flops` for one token and one
    token of its context, `prompt_attention_flops` the same of a prompt's tokens where it is another number. Of a mixture of experts
    `num_linear` has the chosen experts only: `num_chosen` of `num_experts`."""

    num_linear: int
    num_vocabulary: int
    attention_flops: int
    num_experts: int = 0
    num_chosen: int = 0
    prompt_attention_flops: int | None = None

    def decode_flops(self, context: float) -> float:
        """Of one output token: its weights, those of the vocabulary included, and attention's over the tokens before it."""
        return 2 * (self.num_linear + self.num_vocabulary) + self.attention_flops * context

    def prefill_flops(self, prompt_tokens: float, cached_tokens: float = 0) -> float:
        """Of a prompt: each token that is not in the cache looks at all before it; the vocabulary's matrix is needed for the last alone."""
        pairs = (prompt_tokens**2 - cached_tokens**2) / 2
        of_pair = self.attention_flops if self.prompt_attention_flops is None else self.prompt_attention_flops
        return 2 * self.num_linear * (prompt_tokens - cached_tokens) + 2 * self.num_vocabulary + of_pair * pairs

    def share_of_experts(self, num_tokens: float) -> float:
        """Of all experts, those that at least one of so many tokens is expected to choose, as if each chose evenly and by itself. 0 for a
        dense model."""
        return 1 - (1 - self.num_chosen / self.num_experts) ** num_tokens if self.num_experts else 0.0
