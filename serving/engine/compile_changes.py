"""What Tokenport changes in vLLM so that what was compiled once is found and loaded by the starts that follow."""

import copy
from collections.abc import Callable
from typing import Any

from serving.engine.replacing import replace


def install() -> None:
    """Make the changes; see `plugin.py`."""
    _find_compiled_again()
    _load_compiled_again()


def _find_compiled_again() -> None:
    """vLLM finds what it has compiled by a hash of its whole configuration. The socket in it, each start's own, has no part in what is
    compiled."""
    from vllm.config import VllmConfig

    from serving.engine.progress import lasting

    def without_this_start(original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_hash(self: Any, *args: Any, **kwargs: Any) -> Any:
            config = copy.copy(self)
            config.additional_config = lasting(self.additional_config)
            return original(config, *args, **kwargs)

        return compute_hash

    replace(VllmConfig, "compute_hash", without_this_start)


def _load_compiled_again() -> None:
    """What Inductor compiled as a whole, as vLLM 0.32 has it do for the CPU, is complete when it is read; vLLM goes on to complete it, like
    the pieces it has on a GPU, which fails, and compiles anew at every start."""
    import torch
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return

    def completing(original: Callable[..., Any]) -> Callable[..., Any]:
        def load_compiled_function(*args: Any, **kwargs: Any) -> Any:
            loaded: Any = original(*args, **kwargs)
            compiled = loaded._artifacts.compiled_fn
            if not hasattr(compiled, "finalize_loading"):
                compiled.finalize_loading = lambda _vllm_config: None
            return loaded

        return load_compiled_function

    replace(torch.compiler, "load_compiled_function", completing)
