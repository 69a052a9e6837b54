"""Turn the embedded model's GGUF file into a sharded BF16 checkpoint: `python -m serving.engine.gguf_conversion GGUF_FILE OUT_DIR`.

Steps: read the file once, write the shards and their index, the configuration, the tokenizer. Progress goes to standard output as
JSON lines, `{"fraction": 0.5}`; the process ends when its standard input does, so that it never outlives the one who started it.
Knows llama models with a "smollm" tokenizer and refuses others. Transformers converts too, but parses the file three times, which takes
four times as long, and loses the tokenizer's rule for digits.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_SHARD_BYTES = 100_000_000
_BF16_BYTES = 2
# Reading 98,000 strings out of the file's header takes about half of the whole time.
_FRACTION_READ = 0.5
_FRACTION_WEIGHTS = 0.95

_TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# The tokenizer's name of a special token: the GGUF metadata's name of it.
_SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


class GgufModel:
    """A GGUF file read once: its metadata by key and its tensors. Raises `ValueError` for a model this file does not know."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.tensors: list[gguf.ReaderTensor] = list(reader.tensors)
        self._fields = reader.fields
        found = (self["general.architecture"], self["tokenizer.ggml.model"], self["tokenizer.ggml.pre"])
        if found != ("llama", "gpt2", "smollm"):
            raise ValueError(f"{path.name} is not a llama model with a smollm tokenizer but {found}")

    def __getitem__(self, key: str) -> Any:
        """The value of one metadata field. Raises `KeyError`."""
        return self._fields[key].contents()


def convert(gguf_file: Path, out_dir: Path) -> None:
    """Write the checkpoint into the existing folder `out_dir`. Raises `ValueError` for a model it does not know, and `OSError`."""
    _tell(0.0)
    model = GgufModel(gguf_file)
    _tell(_FRACTION_READ)
    write_weights(model, out_dir)
    _write_json(out_dir / "config.json", model_config(model))
    _write_json(out_dir / "generation_config.json", generation_config(model))
    write_tokenizer(model, out_dir)
    _tell(1.0)


def model_config(model: GgufModel) -> dict[str, Any]:
    """The model's config.json, every number from the GGUF metadata."""
    heads, hidden = int(model["llama.attention.head_count"]), int(model["llama.embedding_length"])
    return {
        "_name_or_path": HUB_NAME,
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": int(model["tokenizer.ggml.bos_token_id"]),
        "dtype": "bfloat16",
        "eos_token_id": int(model["tokenizer.ggml.eos_token_id"]),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": int(model["llama.feed_forward_length"]),
        "max_position_embeddings": int(model["llama.context_length"]),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": int(model["llama.block_count"]),
        "num_key_value_heads": int(model["llama.attention.head_count_kv"]),
        "pad_token_id": int(model["tokenizer.ggml.padding_token_id"]),
        # The file holds it as a 32-bit float, 9.999999747378752e-06; seven digits give back the number that was meant.
        "rms_norm_eps": float(f"{model['llama.attention.layer_norm_rms_epsilon']:.7g}"),
        "rope_parameters": {"rope_theta": float(model["llama.rope.freq_base"]), "rope_type": "default"},
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in model.tensors),
        "use_cache": True,
        "vocab_size": len(model["tokenizer.ggml.tokens"]),
    }


def generation_config(model: GgufModel) -> dict[str, int]:
    """The special tokens' numbers and nothing that would change how the model samples."""
    return {f"{short}_token_id": int(model[f"tokenizer.ggml.{_SPECIAL_TOKENS[short]}_token_id"]) for short in ("bos", "eos", "pad")}


def write_weights(model: GgufModel, out_dir: Path) -> None:
    """Write model-0000i-of-0000n.safetensors, each at most `MAX_SHARD_BYTES` large, and model.safetensors.index.json."""
    shards = list(_shards(model.tensors))
    total_bytes = sum(_bf16_bytes(tensor) for tensor in model.tensors)
    weight_map: dict[str, str] = {}
    written_bytes = 0
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        contents: dict[str, torch.Tensor] = {}
        for tensor in shard:
            contents[checkpoint_name(tensor.name)] = _values(tensor, model)
            written_bytes += _bf16_bytes(tensor)
            _tell(_FRACTION_READ + (_FRACTION_WEIGHTS - _FRACTION_READ) * written_bytes / total_bytes)
        save_file(contents, out_dir / file, {"format": "pt"})
        weight_map |= dict.fromkeys(contents, file)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(out_dir / "model.safetensors.index.json", index)


def checkpoint_name(name: str) -> str:
    """A tensor's name in the checkpoint: blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight. Raises `KeyError`."""
    *layer, part, kind = name.split(".")
    prefix = f"model.layers.{layer[1]}." if layer else ""
    return f"{prefix}{_TENSOR_NAMES[part]}.{kind}"


def _shards(tensors: list[gguf.ReaderTensor]) -> Iterator[list[gguf.ReaderTensor]]:
    shard: list[gguf.ReaderTensor] = []
    for tensor in tensors:
        if shard and sum(map(_bf16_bytes, [*shard, tensor])) > MAX_SHARD_BYTES:
            yield shard
            shard = []
        shard.append(tensor)
    yield shard


def _bf16_bytes(tensor: gguf.ReaderTensor) -> int:
    return int(tensor.n_elements) * _BF16_BYTES


def _values(tensor: gguf.ReaderTensor, model: GgufModel) -> torch.Tensor:
    """One tensor's values in BF16, rows in the order the checkpoint wants."""
    values = torch.tensor(dequantize(tensor.data, tensor.tensor_type)).to(torch.bfloat16)
    if tensor.name.endswith("attn_q.weight"):
        return split_rotary_pairs(values, int(model["llama.attention.head_count"]))
    if tensor.name.endswith("attn_k.weight"):
        return split_rotary_pairs(values, int(model["llama.attention.head_count_kv"]))
    return values


def split_rotary_pairs(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Undo llama.cpp's order of a head's rows: it keeps the two rows of a rotary pair adjacent, the checkpoint half a head apart."""
    pairs = rows.reshape(num_heads, rows.shape[0] // num_heads // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape).contiguous()


def write_tokenizer(model: GgufModel, out_dir: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokens: list[str] = model["tokenizer.ggml.tokens"]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in model["tokenizer.ggml.merges"])]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    # What "smollm" means: each digit is a word of its own. Without it, spaces before a number are split in another way than in training.
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    types = model["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(out_dir / "tokenizer.json"))
    named = {f"{short}_token": tokens[model[f"tokenizer.ggml.{long}_token_id"]] for short, long in _SPECIAL_TOKENS.items()}
    common = {"clean_up_tokenization_spaces": False, "model_max_length": int(model["llama.context_length"])}
    _write_json(out_dir / "tokenizer_config.json", named | common | {"tokenizer_class": "PreTrainedTokenizerFast"})
    (out_dir / "chat_template.jinja").write_text(model["tokenizer.chat_template"], encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tell(fraction: float) -> None:
    """One progress line, in one write."""
    sys.stdout.write(json.dumps({"fraction": round(fraction, 3)}) + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    """Wait for the end of standard input, then end the process at once; what is half written is in a folder nobody will read."""
    while os.read(0, 4096):
        pass
    os.write(2, b"the process that asked for the conversion is gone\n")
    os._exit(1)


def main() -> None:
    """The command line: two paths."""
    parser = argparse.ArgumentParser(prog="gguf_conversion")
    parser.add_argument("gguf_file", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    convert(arguments.gguf_file, arguments.out_dir)


if __name__ == "__main__":
    main()
