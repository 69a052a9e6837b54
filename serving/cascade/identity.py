"""What a policy holds for, as hashes: a tier's model, its chat template, how it samples. The same functions when fitting and when serving.

Of weights, which take minutes to read whole, each file counts with its name, its size, the list of its tensors and samples spread over
it. Another training of the same model changes nearly every weight, and is found; a change of a few bytes is not: that is what checksums
are for.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import CascadeError

_CONFIGURATION = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
"""generation_config.json: vLLM samples by it where a request does not say how (`generation_config` of its vllm/config/model.py)."""
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt")
_NUM_SAMPLES = 64
_SAMPLE_BYTES = 16_384
"""1 MB of each file; the first sample of a safetensors file has the start of the list of its tensors."""


def model_hash(folder: Path) -> str:
    """Of the model in a folder: its configuration, its tokenizer and its weights, the chat template left out.

    Raises:
        CascadeError: there is no config.json, there are no weights, or a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        weights = sorted(file for file in folder.iterdir() if file.suffix in _WEIGHTS)
        if not (folder / "config.json").is_file() or not weights:
            raise CascadeError(f"{folder} holds no model: expected config.json and {', '.join(f'*{suffix}' for suffix in _WEIGHTS)}")
        for name in _CONFIGURATION:
            if (folder / name).is_file():
                digest.update(f"{name}\0".encode() + hashlib.sha256((folder / name).read_bytes()).digest())
        for file in weights:
            digest.update(f"{file.name}\0".encode() + _sampled(file))
    except OSError as error:
        raise CascadeError(f"cannot read the model in {folder}: {error}") from error
    return f"sha256:{digest.hexdigest()}"


def chat_template_hash(folder: Path) -> str:
    """Of the template in a model's folder: chat_template.jinja, else what tokenizer_config.json has; of the empty text where neither is.

    Raises:
        CascadeError: a file cannot be read.
    """
    template: Any = ""
    try:
        if (folder / "chat_template.jinja").is_file():
            template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        elif (folder / "tokenizer_config.json").is_file():
            template = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template", "")
    except (OSError, ValueError) as error:
        raise CascadeError(f"cannot read the chat template in {folder}: {error}") from error
    return _hash_of(template)


def sampling_hash(sampling: Mapping[str, Any]) -> str:
    """Of what a tier's requests sample with (`temperature`, `top_p`, ...), whatever the order of the names; 0 is 0.0."""
    return _hash_of({name: float(value) if type(value) is int else value for name, value in sampling.items()})


def _hash_of(value: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()}"


def _sampled(file: Path) -> bytes:
    size_bytes = file.stat().st_size
    digest = hashlib.sha256(str(size_bytes).encode())
    last_start = max(0, size_bytes - _SAMPLE_BYTES)
    with file.open("rb") as opened:
        for start in sorted({last_start * sample // (_NUM_SAMPLES - 1) for sample in range(_NUM_SAMPLES)}):
            opened.seek(start)
            digest.update(opened.read(_SAMPLE_BYTES))
    return digest.digest()
