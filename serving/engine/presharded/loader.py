"""vLLM's loader for a pre-sharded checkpoint: each rank reads its own files, tensor by tensor, straight to where they belong.

What vLLM does to weights after loading (repacking for its kernels) comes afterwards, as with any loader.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from serving.engine.loading import counted_weights
from serving.engine.presharded.manifest import rank_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from vllm.config import ModelConfig


class RankLoader(BaseModelLoader):
    """Loads `rank-R-of-N/*.safetensors` of a local folder."""

    def download_model(self, model_config: "ModelConfig") -> None:
        """Nothing to do: the folder is there."""

    def load_weights(self, model: "nn.Module", model_config: "ModelConfig") -> None:
        """Fill the parameters of this rank.

        Raises:
            ValueError: the files do not hold exactly what the model has.
        """
        folder = Path(model_config.model) / rank_folder(get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size())
        state = model.state_dict()
        filled: set[int] = set()
        for name, tensor in counted_weights(_tensors(folder), str(folder)):
            target = state.get(name)
            if target is None or target.shape != tensor.shape or target.dtype != tensor.dtype:
                has = "no such parameter" if target is None else f"{target.dtype} {tuple(target.shape)}"
                raise ValueError(f"{folder}: {name} is {tensor.dtype} {tuple(tensor.shape)}, the model has {has}: prepare it anew")
            target.copy_(tensor)
            filled.add(target.data_ptr())
        # A tied parameter has two names and one place.
        if missing := [name for name, target in state.items() if target.numel() and target.data_ptr() not in filled]:
            raise ValueError(f"{folder} lacks {missing[0]} and {len(missing) - 1} more: prepare it anew")


def _tensors(folder: Path) -> "Iterator[tuple[str, Tensor]]":
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                yield name, opened.get_tensor(name)
