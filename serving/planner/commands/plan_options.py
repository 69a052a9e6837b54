"""The command line of `tokenport plan MODEL`: options under vLLM's names, and the request that they make."""

import argparse

from serving.planner.commands.one_line_parser import OneLineParser
from serving.planner.commands.target import add_options
from serving.planner.commands.whole_number import whole_number
from serving.planner.plan import PlanRequest

_HELP = """Does MODEL (a folder, a config.json or a hub id) fit on a GPU or an instance, with how long a context, for how many, how fast?
Without --gpu and --instance, or with --instance and a target: which instance, precision and split serve it for the least.
N can be 8k (8000) or 8K (8192), as vLLM reads it.

`tokenport plan cost`: on demand, provisioned or one's own. `tokenport plan task`: the smallest model that does. `tokenport plan prices`."""


def parser() -> OneLineParser:
    """All options of the command."""
    made = OneLineParser(prog="tokenport plan", description=_HELP)
    made.add_argument("model", metavar="MODEL")
    defaults = PlanRequest()
    for name, told in (
        ("context", "tokens of a sequence; default: the model's own"),
        ("concurrency", "sequences of that length at once; default: 1"),
        ("tensor-parallel-size", "default: the fewest GPUs that surely hold the model"),
        ("pipeline-parallel-size", "default: 1"),
        ("data-parallel-size", "default: 1"),
        ("max-num-batched-tokens", "tokens of a step; default: vLLM's for the GPU"),
        ("max-num-seqs", "sequences of a step; default: vLLM's for the GPU"),
        ("gpus", "how many of --gpu there are; default: 1"),
    ):
        made.add_argument(f"--{name}", metavar="N", help=told)
    made.add_argument("--quantization", metavar="Q", help="int8, one of vLLM's, or none; default: as the checkpoint is")
    made.add_argument("--dtype", default=defaults.dtype, help="of what is not quantised; default: auto")
    made.add_argument("--kv-cache-dtype", default=defaults.kv_cache_dtype, help="auto, fp8, ...; default: auto")
    made.add_argument("--gpu-memory-utilization", type=float, default=defaults.gpu_memory_utilization, metavar="PART", help="default: 0.92")
    made.add_argument("--enforce-eager", action="store_true", help="without CUDA graphs")
    made.add_argument("--enable-expert-parallel", action="store_true", help="experts whole on a rank, not in slices on all")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--instance", metavar="NAME", help="a SageMaker instance, such as ml.g6.12xlarge")
    where.add_argument("--gpu", metavar="NAME", help="a GPU, such as L4")
    made.add_argument("--json", action="store_true", help="print the plan as JSON")
    add_options(made)
    return made


def request_of(options: argparse.Namespace) -> PlanRequest:
    """What the options ask.

    Raises:
        PlanError: a number is none.
    """
    defaults = PlanRequest()
    return PlanRequest(
        context=whole_number("--context", options.context),
        concurrency=whole_number("--concurrency", options.concurrency) or defaults.concurrency,
        quantization=options.quantization,
        dtype=options.dtype,
        kv_cache_dtype=options.kv_cache_dtype,
        tensor_parallel_size=whole_number("--tensor-parallel-size", options.tensor_parallel_size),
        pipeline_parallel_size=whole_number("--pipeline-parallel-size", options.pipeline_parallel_size) or defaults.pipeline_parallel_size,
        data_parallel_size=whole_number("--data-parallel-size", options.data_parallel_size) or defaults.data_parallel_size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_num_batched_tokens=whole_number("--max-num-batched-tokens", options.max_num_batched_tokens),
        max_num_seqs=whole_number("--max-num-seqs", options.max_num_seqs),
        enforce_eager=options.enforce_eager,
        enable_expert_parallel=options.enable_expert_parallel,
    )


def num_gpus_of(options: argparse.Namespace) -> int:
    """How many GPUs --gpu stands for."""
    return whole_number("--gpus", options.gpus) or 1
