"""A process of its own that starts an engine with made-up weights, gives it the fullest step that it takes, and prints what each rank's
ledger measured, as the last line of its output, in JSON.

python -m tests.engine.step_facts CONFIG_FOLDER JSON_OF_ENGINE_ARGUMENTS
"""

import json
import os
import sys

PROMPT_TOKENS = 1024


def main(folder: str, engine: dict) -> None:
    os.environ |= {"TORCH_COMPILE_DISABLE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if engine.get("tensor_parallel_size", 1) > 1:
        from serving.engine.cpu import find_cores, openmp_environment

        # As the server does; by itself vLLM binds ranks to NUMA nodes.
        os.environ |= openmp_environment(find_cores(sorted(os.sched_getaffinity(0))), engine["tensor_parallel_size"], None, {})
    from vllm import LLM

    usual = {"load_format": "dummy", "skip_tokenizer_init": True, "enforce_eager": True, "dtype": "bfloat16", "max_model_len": 2048}
    llm = LLM(folder, **usual | engine, kv_cache_memory_bytes=400_000_000, enable_prefix_caching=False)
    ask(llm, [[1]])
    llm.collective_rpc("tokenport_memory")  # what comes after this is counted as steps'
    length = min(PROMPT_TOKENS, engine["max_num_batched_tokens"])
    ask(llm, [[1] * length] * (engine["max_num_batched_tokens"] // length))
    ask(llm, [[1] * 8] * engine["max_num_seqs"])
    print(json.dumps(llm.collective_rpc("tokenport_memory")))


def ask(llm, prompts: list[list[int]]) -> None:
    from vllm import SamplingParams

    sampling = SamplingParams(max_tokens=2, ignore_eos=True, detokenize=False)
    llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
