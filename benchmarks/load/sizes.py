"""How many tokens each request has, in and out: drawn, and held to what a prompt can be and what the model takes."""

import numpy as np

from benchmarks.load.lengths import Distribution
from benchmarks.load.quantities import wrong
from benchmarks.load.shape import LoadOptions


def draw_sizes(
    options: LoadOptions, input_length: Distribution, num_requests: int, rng: np.random.Generator, *, least_input: int
) -> list[tuple[int, int]]:
    """Input and output tokens of each request. A fixed length that cannot be is refused; drawn ones are clipped.

    `least_input`: the smallest prompt that can be made.
    """
    _check_fixed(options, input_length, least_input)
    inputs = input_length.draw_lengths(num_requests, rng, minimum=least_input)
    outputs = options.output_length.draw_lengths(num_requests, rng)
    return [
        within_model(options, int(num_in), int(num_out), least_input=least_input) for num_in, num_out in zip(inputs, outputs, strict=True)
    ]


def within_model(options: LoadOptions, num_input: int, num_output: int, *, least_input: int) -> tuple[int, int]:
    """A request's tokens, clipped to `max_model_len` where it is given: the prompt gives way to the answer, as far as it can."""
    num_input = max(num_input, least_input)
    if options.max_model_len is None:
        return num_input, num_output
    num_output = min(num_output, max(options.max_model_len - least_input, 1))
    return max(min(num_input, options.max_model_len - num_output), least_input), num_output


def _check_fixed(options: LoadOptions, input_length: Distribution, least_input: int) -> None:
    if input_length.kind != "fixed":
        return
    num_input = input_length.values[0]
    if num_input < least_input:
        why = f"the template, special tokens and --shared-prefix take {least_input - 1} of them"
        raise wrong("--input-len", input_length.text, f"must be at least {least_input}: {why}")
    num_output = options.output_length.values[0] if options.output_length.kind == "fixed" else 1
    if options.max_model_len is not None and num_input + num_output > options.max_model_len:
        room = f"the model takes {options.max_model_len} tokens in all"
        raise wrong("--input-len", input_length.text, f"{room}, and --output-len is {options.output_length.text}")
