"""A process of its own that loads a model with `quantization=int8` and prints, as the last line of its output, what it found, as JSON.

python -m tests.engine.int8_facts MODEL ADAPTER
"""

import collections
import json
import logging
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from vllm import LLM, SamplingParams
from vllm.config import set_current_vllm_config
from vllm.lora.request import LoRARequest
from vllm.model_executor.layers.linear import LinearBase, ReplicatedLinear

from serving.engine import int8_report
from serving.engine.int8_rounding import quantize_rows

IGNORED = [
    r"re:.*layers\.0\.self_attn\.o_proj",
    "model.layers.1.mlp.gate_proj",
    "model.layers.1.mlp.up_proj",
    "lm_head",
    "model.layers.0.mpl",
]
QUESTION = [{"role": "user", "content": "What is the chemical symbol for water?"}]
GREEDY = SamplingParams(temperature=0, max_tokens=16)


def main(model: str, adapter: str) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("tokenport.engine").addHandler(handler)
    logging.getLogger("tokenport.engine").setLevel(logging.INFO)
    llm = LLM(
        model,
        quantization="int8",
        quantization_config={"ignore": IGNORED},
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=512,
        kv_cache_memory_bytes=200_000_000,
        enable_lora=True,
        max_lora_rank=8,
        distributed_executor_backend="serving.engine.cpu_executor.InProcessExecutor",
    )
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    network = worker.model_runner.model
    layers = {name.replace(".base_layer", ""): layer for name, layer in network.named_modules() if isinstance(layer, LinearBase)}
    kinds = collections.defaultdict(list)
    for name, layer in layers.items():
        kinds[type(layer.quant_method).__name__].append(name)
    facts = {
        "lines": list(lines),
        "kinds": kinds,
        "embedding": str(network.model.embed_tokens.weight.dtype),
        "steps": off_by_steps(model, layers["model.layers.2.self_attn.qkv_proj"]),
        "text": llm.chat(QUESTION, GREEDY, use_tqdm=False)[0].outputs[0].text,
        "adapted": llm.chat(QUESTION, GREEDY, use_tqdm=False, lora_request=LoRARequest("one", 1, adapter))[0].outputs[0].text,
    }
    lines.clear()
    with set_current_vllm_config(llm.llm_engine.vllm_config), torch.device("cpu"):
        facts["unfit"] = unfit(llm.llm_engine.vllm_config.quant_config)
    facts["unfit_lines"] = lines
    print(json.dumps(facts))


def off_by_steps(model: str, layer: LinearBase) -> float:
    """How far, in steps of each row, the fused layer's answers to unit vectors are from the checkpoint's weights."""
    tensors = {}
    for file in Path(model).glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys() if ".layers.2.self_attn" in name}  # noqa: SIM118
    weight = torch.cat([tensors[f"model.layers.2.self_attn.{part}_proj.weight"] for part in "qkv"])
    answers = layer.quant_method.apply(layer, torch.eye(weight.shape[1], dtype=torch.bfloat16)).T
    _, scales = quantize_rows(weight)
    return float(((answers.float() - weight.float()) / scales).abs().max())


def unfit(config) -> dict:
    """Layers made on the running engine: one in FP32, one with a weight that is no number, one that fits. Their methods and answers."""
    torch.set_default_dtype(torch.bfloat16)  # as while a model loads
    model = torch.nn.Module()
    model.exact = ReplicatedLinear(8, 8, bias=False, params_dtype=torch.float32, quant_config=config, prefix="exact")
    model.broken = ReplicatedLinear(8, 4, bias=False, params_dtype=torch.bfloat16, quant_config=config, prefix="broken")
    model.broken.weight.weight_loader(model.broken.weight, torch.full((4, 8), float("inf"), dtype=torch.bfloat16))
    model.whole = ReplicatedLinear(8, 4, bias=False, params_dtype=torch.bfloat16, quant_config=config, prefix="whole")
    model.whole.weight.weight_loader(model.whole.weight, torch.ones(4, 8, dtype=torch.bfloat16))
    int8_report.report(model, config)
    ones = torch.ones(1, 8)
    answers = [layer(ones.bfloat16())[0][0, 0] for layer in (model.broken, model.whole)]
    return {"methods": [type(layer.quant_method).__name__ for layer in model.children()], "answers": [float(answer) for answer in answers]}


if __name__ == "__main__":
    main(*sys.argv[1:])
