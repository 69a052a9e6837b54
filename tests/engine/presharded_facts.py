"""Run by `test_presharded.py` in a process of its own: splits a model over two ranks, loads each rank again, and damages one.

python -m tests.engine.presharded_facts MODEL OUT
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from vllm.config import set_current_vllm_config
from vllm.model_executor.model_loader import get_model_loader
from vllm.utils.torch_utils import set_default_torch_dtype

from serving.engine.presharded.loader import RankLoader
from serving.engine.presharded.manifest import rank_folder
from serving.engine.presharded.writer import _config, rank_state, write_parts
from serving.engine.settle import settle

RANKS = 2


def loaded(config: Any) -> dict[str, torch.Tensor]:
    """The state of a model of this rank, filled from OUT alone."""
    config.compilation_config.static_forward_context.clear()
    with set_current_vllm_config(config), set_default_torch_dtype(config.model_config.dtype), torch.device("cpu"):
        model = get_model_loader(config.load_config).create_model(config, config.model_config)
        for tensor in model.state_dict().values():
            tensor.zero_()
        RankLoader(config.load_config).load_weights(model, config.model_config)
    return dict(model.state_dict())


def failure(config: Any) -> str:
    try:
        loaded(config)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    source, out = sys.argv[1], Path(sys.argv[2])
    engine = settle({"tensor_parallel_size": RANKS, "dtype": "bfloat16"}, source, on_cpu=True)
    config = _config(source, engine)
    shapes, same = {}, []
    for rank in range(RANKS):
        config.model_config.model = source
        state = rank_state(config, rank, RANKS)
        shapes = {name: list(tensor.shape) for name, tensor in state.items()}
        names = write_parts(state, out / rank_folder(rank, RANKS), max_bytes=100_000)
        config.model_config.model = str(out)
        again = loaded(config)
        same.append(len(names) > 1 and all(torch.equal(again[name], tensor) for name, tensor in state.items()))
    queries = [load_all(out / rank_folder(rank, RANKS))["model.layers.0.self_attn.o_proj.weight"] for rank in range(RANKS)]
    part = out / rank_folder(RANKS - 1, RANKS) / names[0]
    tensors = load_file(part)
    name = next(iter(tensors))
    save_file({key: value for key, value in tensors.items() if key != name}, part)
    lacks = failure(config)
    save_file(tensors | {name: torch.zeros(3, dtype=torch.bfloat16)}, part)
    facts = {"same": same, "shapes": shapes, "zero_columns": sum(int((one == 0).all(0).sum()) for one in queries)}
    print(json.dumps(facts | {"lacks": lacks, "other_shape": failure(config), "name": name}), flush=True)
    os._exit(0)


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.iterdir() for name, tensor in load_file(file).items()}


if __name__ == "__main__":
    main()
