"""What a target was found to take, before it is measured. Plain data, the same in every process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`base_path`: `/v1` or empty: what stands between the target's URL and the OpenAI routes. `model`: the name to send, None for none.
    `accepts_*`: fields that it does not refuse; what a server ignores without a word shows in the answers only. `has_tokenize`: it has
    vLLM's `/tokenize`. `notes`: what was left out because of it, a sentence each, for people."""

    base_path: str = "/v1"
    model: str | None = None
    accepts_stream_options: bool = True
    accepts_continuous_usage: bool = True
    accepts_ignore_eos: bool = True
    accepts_token_ids: bool = False
    has_tokenize: bool = False
    notes: tuple[str, ...] = ()
