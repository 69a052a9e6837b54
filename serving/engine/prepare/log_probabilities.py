"""The model's opinion of a text, token by token, as it is served: `python -m serving.engine.prepare.log_probabilities SPEC_FILE`.

Steps: tokens in windows, the model in this process, each window as one prompt, the log-probability of every next token into a .npy file.
vLLM computes them for prompts anyway and hands out a few; here they are taken where it computes them. A process of its own: two engines do
not fit into one. It ends when its standard input does.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WINDOW_TOKENS = 512
_KV_CACHE_BYTES = 512 * 2**20
"""One window of 512 tokens needs less of any model that fits on one device."""


def text() -> str:
    """The text that ships with the project, about 1,800 words: written for it, under its licence."""
    return files("serving.engine.prepare").joinpath("quality_text.txt").read_text(encoding="utf-8")


def windows(model: str) -> list[list[int]]:
    """The text in the model's tokens, cut every `WINDOW_TOKENS`; each piece starts as a prompt does, with what the tokenizer puts first."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    first = tokenizer("").input_ids
    tokens = tokenizer(text(), add_special_tokens=False).input_ids
    size = WINDOW_TOKENS - len(first)
    pieces = [first + tokens[start : start + size] for start in range(0, len(tokens), size)]
    return [piece for piece in pieces if len(piece) > 1]


def main() -> None:
    """Compute and write: `OUT.npy` [tokens, vocabulary] in FP32, `OUT.targets.npy` [tokens], the tokens that came."""
    import numpy as np

    threading.Thread(target=_end_with_stdin, daemon=True).start()
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    prompts = windows(spec["model"])
    num_rows = sum(len(prompt) - 1 for prompt in prompts)
    compute = _through_vllm if spec["runtime"] == "vllm" else _through_transformers
    out, done = None, 0
    for rows in compute(spec["model"], spec["engine"], prompts):
        if out is None:
            shape = (num_rows, rows.shape[1])
            out = np.lib.format.open_memmap(spec["out"], mode="w+", dtype=np.float32, shape=shape)  # type: ignore[no-untyped-call]
        out[done : done + len(rows)] = rows
        done += len(rows)
        print(json.dumps({"fraction": done / num_rows}), flush=True)
    if out is None or done != num_rows:
        raise RuntimeError(f"the engine gave log-probabilities for {done} of {num_rows} tokens")
    out.flush()
    targets = np.array([token for prompt in prompts for token in prompt[1:]], dtype=np.int64)
    np.save(Path(spec["out"]).with_suffix(".targets.npy"), targets, allow_pickle=False)
    sys.stdout.flush()
    os._exit(0)  # what the engine would take apart goes with the process


def _through_vllm(model: str, engine: dict[str, Any], prompts: list[list[int]]) -> Iterator["np.ndarray[Any, Any]"]:
    """A prompt at a time: what a prompt's neighbours do to rounding stays out of the figures."""
    from vllm import EngineArgs, SamplingParams, envs
    from vllm.inputs import TokensPrompt
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.sample.sampler import Sampler

    # The newer of vLLM's two runners has no such place; layers and kernels are the same in both.
    envs.VLLM_USE_V2_MODEL_RUNNER = False
    computed: list[Tensor] = []
    original = Sampler.compute_logprobs

    def compute_logprobs(logits: "Tensor") -> "Tensor":
        computed.append(original(logits))
        return computed[-1]

    Sampler.compute_logprobs = staticmethod(compute_logprobs)
    config = EngineArgs(model=model, **_engine_arguments(engine)).create_engine_config(UsageContext.ENGINE_CONTEXT)
    llm = LLMEngine(config, Executor.get_class(config), log_stats=False, multiprocess_mode=False)
    for number, prompt in enumerate(prompts):
        computed.clear()
        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        llm.add_request(str(number), TokensPrompt(prompt_token_ids=prompt), sampling)
        while llm.has_unfinished_requests():
            llm.step()
        for rows in computed:
            yield rows.float().cpu().numpy()


def _engine_arguments(engine: dict[str, Any]) -> dict[str, Any]:
    """As the server would choose them, with room for one window in one step."""
    from serving.engine.args import cpu_defaults
    from serving.engine.environment import runs_on_cpu

    chosen: dict[str, Any] = {
        "max_model_len": WINDOW_TOKENS + 1,
        "max_num_batched_tokens": WINDOW_TOKENS + 1,
        "max_num_seqs": 1,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": _KV_CACHE_BYTES,
        "use_tqdm_on_load": False,
        # Compiling would take longer than the text.
        "enforce_eager": True,
    }
    if runs_on_cpu():
        # The server's own executor tells failures to the server; there is none here.
        backend = {"distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor"}
        chosen |= cpu_defaults(chosen, 0.5) | backend
    return chosen | engine


def _through_transformers(model: str, _engine: dict[str, Any], prompts: list[list[int]]) -> Iterator["np.ndarray[Any, Any]"]:
    """For what vLLM does not run on this device."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    loaded = AutoModelForCausalLM.from_pretrained(model, device_map={"": device}, dtype=torch.bfloat16, local_files_only=True).eval()
    for prompt in prompts:
        with torch.inference_mode():
            logits = loaded(torch.tensor([prompt], device=device)).logits[0, :-1]
        yield logits.log_softmax(dim=-1, dtype=torch.float32).cpu().numpy()


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
