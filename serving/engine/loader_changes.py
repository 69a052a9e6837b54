"""What Tokenport changes in vLLM's loaders: each tells how far it is, none reads a pickle unasked, one more reads a rank's own files."""

from collections.abc import Callable, Generator
from typing import Any

from vllm.config import get_current_vllm_config
from vllm.model_executor import model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.modelexpress_loader import ModelExpressModelLoader
from vllm.model_executor.model_loader.runai_streamer_loader import RunaiModelStreamerLoader
from vllm.model_executor.model_loader.tensorizer_loader import TensorizerLoader
from vllm.model_executor.model_loader.weight_cache.ipc_loader import IpcModelLoader
from vllm.v1.engine.core import EngineCore

from serving.engine.loaders import PICKLES_KEY
from serving.engine.loading import PHASE, counted_weights
from serving.engine.padding import padded_weights
from serving.engine.presharded.loader import RankLoader
from serving.engine.presharded.manifest import LOAD_FORMAT
from serving.engine.progress import send_progress
from serving.engine.replacing import replace


def install() -> None:
    """Make the changes; see `plugin.py`."""
    _report_weight_loading()
    _report_other_loaders()
    _read_no_pickle_unasked()
    _read_ranks()


def _report_weight_loading() -> None:
    """vLLM tells the progress of loading on a terminal only; count the bytes as they pass and send them to the server's `/ping`. What the
    plan pads is padded on the same way; see `padding.py`."""

    def telling(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
            send_progress(vllm_config.additional_config, "building the model")
            original(self, vllm_config, *args, **kwargs)

        return init

    replace(EngineCore, "__init__", telling)

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def get_all_weights(self: Any, model_config: Any, model: Any) -> Generator[tuple[str, Any], None, None]:
            weights = counted_weights(original(self, model_config, model), model_config.model)
            yield from padded_weights(weights, model_config.model)

        return get_all_weights

    replace(DefaultModelLoader, "get_all_weights", counting)


def _report_other_loaders() -> None:
    """Loaders that do not go through `DefaultModelLoader`: Run:ai's tells its tensors the same way, of the others the phase is known."""

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def get_all_weights(self: Any, model_config: Any, model: Any) -> Generator[tuple[str, Any], None, None]:
            yield from counted_weights(original(self, model_config, model), model_config.model)

        return get_all_weights

    def telling(original: Callable[..., Any]) -> Callable[..., Any]:
        def load_model(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
            send_progress(vllm_config.additional_config, PHASE)
            model = original(self, vllm_config, *args, **kwargs)
            send_progress(vllm_config.additional_config, "warming up")
            return model

        return load_model

    replace(RunaiModelStreamerLoader, "get_all_weights", counting)
    for loader in (BaseModelLoader, TensorizerLoader, ModelExpressModelLoader, IpcModelLoader):
        replace(loader, "load_model", telling)


def _read_no_pickle_unasked() -> None:
    """vLLM's `auto` falls back to pickles where it finds nothing else, of a hub's model only after downloading them."""

    def refusing(original: Callable[..., Any]) -> Callable[..., Any]:
        def _prepare_weights(self: Any, model_name_or_path: str, *args: Any, **kwargs: Any) -> Any:
            found = original(self, model_name_or_path, *args, **kwargs)
            _, files, is_safetensors, _ = found
            if not is_safetensors and not get_current_vllm_config().additional_config.get(PICKLES_KEY):
                told = f"{model_name_or_path} has its weights as pickles only ({len(files)} files), which can run code"
                raise ValueError(f"{told}: convert them to safetensors, or ask for them with --load-format pt")
            return found

        return _prepare_weights

    replace(DefaultModelLoader, "_prepare_weights", refusing)


def _read_ranks() -> None:
    """See `presharded/`: vLLM's `sharded_state` keeps weights as its kernels repacked them, which INT8 and the CPU cannot load again."""
    if LOAD_FORMAT not in model_loader._LOAD_FORMAT_TO_MODEL_LOADER:  # it would warn
        model_loader.register_model_loader(LOAD_FORMAT)(RankLoader)
