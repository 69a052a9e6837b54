"""Pure: which of the objects below a prefix make a model, by their names. Never a pickle unless asked for, never a weight twice.

Rules: hidden files, training checkpoints and other frameworks' copies are left out; of the weights one format, safetensors first; of
those the shards that the index names, or, where there are both, not Mistral's consolidated ones.
"""

from collections.abc import Collection, Iterable
from fnmatch import fnmatch

from serving.errors import ModelUnavailable

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt")
"""What vLLM reads of pickles."""
PICKLE_FORMATS = frozenset({"pt", "npcache"})
"""Load formats that ask for them."""
_WEIGHTS = ".safetensors"
_CONSOLIDATED = "consolidated*.safetensors"
_SUFFIXES = (".json", ".jinja", ".jinja2", ".model", ".txt", ".tiktoken", ".vocab", ".bpe", ".spm")
_NAMES = ("SHA256SUMS", "LICENSE*", "NOTICE*", "merges*", "vocab*")
_CODE = ".py"
_OTHER_FOLDERS = ("onnx", "openvino", "original", "coreml", "tflite", "flax", "checkpoint-*", "global_step*", "runs")


def needed(names: Iterable[str], load_format: str, *, with_code: bool, with_weights: bool = True) -> list[str]:
    """Those of `names`, paths below the prefix, that are to be downloaded. `with_code`: Python files too, for trust_remote_code.

    Raises:
        ModelUnavailable: a name would leave the folder.
    """
    kept = [name for name in map(_checked, names) if not _is_elsewhere(name)]
    chosen = [name for name in kept if name.endswith(_SUFFIXES) or (with_code and name.endswith(_CODE)) or _is_named(name)]
    return chosen + (_weights(kept, load_format) if with_weights else [])


def shards_only(names: Collection[str], indexed: Collection[str]) -> list[str]:
    """`names` without the safetensors at the top that are not `indexed`, where any of those are."""
    if not set(indexed) & set(names):
        return list(names)
    return [name for name in names if not name.endswith(_WEIGHTS) or "/" in name or name in indexed]


def _weights(names: Collection[str], load_format: str) -> list[str]:
    if load_format in PICKLE_FORMATS:
        suffix = ".pt" if load_format == "pt" and any(name.endswith(".pt") for name in names) else ".bin"
        return [name for name in names if name.endswith(suffix)]
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    consolidated = [name for name in weights if fnmatch(name, _CONSOLIDATED)]
    others = [name for name in weights if name not in consolidated]
    return consolidated if load_format == "mistral" else others or consolidated


def _checked(name: str) -> str:
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ModelUnavailable(f"the object {name[:200]!r} has no name that a file can have: take it out of the prefix")
    return name


def _is_elsewhere(name: str) -> bool:
    *folders, file = name.split("/")
    return file.startswith(".") or any(part.startswith(".") or any(fnmatch(part, other) for other in _OTHER_FOLDERS) for part in folders)


def _is_named(name: str) -> bool:
    return any(fnmatch(name.rsplit("/", 1)[-1], pattern) for pattern in _NAMES) and not name.endswith((*PICKLES, _WEIGHTS))
