"""Split a checkpoint as vLLM does, rank by rank, in one process: `python -m serving.engine.presharded.writer SPEC_FILE`.

Steps for a rank: the model built as that rank's (no other rank runs: loading needs no communication), its weights loaded by vLLM's own
loader, its parameters written before kernels repack them. One rank's weights are in memory at a time. Tells each rank on standard output.
It ends when its standard input does.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.engine.presharded.manifest import rank_folder

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.config import VllmConfig

MAX_PART_BYTES = 1_000_000_000


def main() -> None:
    """Write the ranks that the specification names: `model`, `out`, `engine` (vLLM's arguments), `ranks`."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    size = spec["engine"]["tensor_parallel_size"]
    config = _config(spec["model"], spec["engine"])
    for rank in spec["ranks"]:
        parts = write_parts(rank_state(config, rank, size), Path(spec["out"]) / rank_folder(rank, size))
        print(json.dumps({"rank": rank, "parts": parts}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # what vLLM would take apart goes with the process


def _config(model: str, engine: Mapping[str, Any]) -> "VllmConfig":
    """Sets up a world of one process, in which the ranks are played one after another."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment
    from vllm.distributed.parallel_state import initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs

    # Named, since vLLM would look for as many devices as ranks to choose one.
    arguments = {"distributed_executor_backend": "mp", "enforce_eager": True, "skip_tokenizer_init": True, **engine}
    config = EngineArgs(model=model, **arguments).create_engine_config()
    meeting_point = Path(tempfile.mkdtemp(prefix="tokenport-")) / "world"
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"file://{meeting_point}", 0, "gloo")
        initialize_model_parallel(1, 1)
    return config


def rank_state(config: "VllmConfig", rank: int, size: int) -> "dict[str, Tensor]":
    """The parameters and saved buffers of one rank by vLLM's names, each place in memory once."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import get_tp_group
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.utils.torch_utils import set_default_torch_dtype

    group = get_tp_group()
    group.world_size, group.rank_in_group = size, rank
    # Layers enter themselves there by name, once.
    config.compilation_config.static_forward_context.clear()
    config.compilation_config.static_all_moe_layers.clear()
    with set_current_vllm_config(config), set_default_torch_dtype(config.model_config.dtype), torch.device("cpu"):
        loader = get_model_loader(config.load_config)
        model = loader.create_model(config, config.model_config)
        loader.load_weights(model, config.model_config)
    places: dict[int, str] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        if not tensor.numel() or places.setdefault(tensor.data_ptr(), name) == name:
            state[name] = tensor.contiguous()
    return state


def write_parts(state: "dict[str, Tensor]", folder: Path, max_bytes: int = MAX_PART_BYTES) -> list[str]:
    """Write the parameters to files of at most `max_bytes` (a single larger one excepted), read them again, and only then give `folder` its
    name. Returns the files' names.

    Raises:
        OSError: the disk is full, or does not give back what was written.
    """
    from safetensors.torch import save_file

    work = folder.with_name(f".{folder.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    names = []
    for number, part in enumerate(_parts(state, max_bytes), start=1):
        names.append(f"part-{number:05}.safetensors")
        save_file(part, work / names[-1], {"format": "pt"})
        (work / names[-1]).chmod(0o644)
        _verify(work / names[-1], part)
    work.rename(folder)
    return names


def _verify(file: Path, part: "dict[str, Tensor]") -> None:
    import torch
    from safetensors import safe_open

    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        # What is read again shall come from the disk, not from memory.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with safe_open(file, framework="pt") as opened:
        for name, tensor in part.items():
            # As bytes: a NaN is not equal to itself.
            if not torch.equal(opened.get_tensor(name).reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)):
                raise OSError(f"{file}: what was read back is not what was written; look after this disk")


def _parts(state: "dict[str, Tensor]", max_bytes: int) -> "Iterator[dict[str, Tensor]]":
    part: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if part and sum(one.nbytes for one in part.values()) + tensor.nbytes > max_bytes:
            yield part
            part = {}
        part[name] = tensor
    yield part


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
