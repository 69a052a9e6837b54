"""Preparing a checkpoint: what is written, what is refused, and what a kill in the middle leaves to do. Tiny models with random weights."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from serving.engine.int8_rounding import quantize_rows
from serving.engine.prepare.checkpoint import read_header, read_tensor
from serving.engine.prepare.command import prepare
from serving.engine.prepare.layers import choose_layers
from serving.engine.prepare.plan import MANIFEST, RECORD, open_output, plan_shards
from serving.engine.prepare.source import read_source
from serving.engine.prepare.transform import Int8
from serving.engine.prepare.writing import check_finished, verify, write_shards
from serving.errors import ModelUnavailable, SettingsError, StartError
from tests.conftest import settings_in

ROOT = Path(__file__).parents[3]
LAYER = "model.layers.0.self_attn.q_proj"
LINEARS = {f"self_attn.{name}_proj" for name in "qkvo"} | {f"mlp.{name}_proj" for name in ("gate", "up", "down")}
# bitsandbytes 0.50 rounds wrongly on a CPU where rows are shorter than its blocks of 64.
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
DISK = namedtuple("usage", ("total", "used", "free"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in three files, with what may lie beside one."""
    folder = tmp_path_factory.mktemp("source") / "tiny"
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY, tie_word_embeddings=False), dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    for name in ("tokenizer.json", "LICENSE", "chat_template.jinja", "modeling_own.py", "optimizer.bin", "training_args.pt", "SHA256SUMS"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


def run(source: Path, out: Path, *words: str, method: str = "int8") -> int:
    return prepare([str(source), str(out), "--quantization", method, *words], settings_in(out.parent / "cache"), {})


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_each_linear_layer_gets_the_bytes_that_loading_gives_it_and_the_rest_stays(made: Path, tmp_path: Path) -> None:
    assert run(made, tmp_path / "out") == 0
    before, after = tensors_of(made), tensors_of(tmp_path / "out")
    quantized = {f"model.layers.{number}.{layer}" for number in (0, 1) for layer in LINEARS}
    assert after.keys() == before.keys() | {f"{layer}.weight_scale" for layer in quantized}
    for name, tensor in before.items():
        if name.removesuffix(".weight") in quantized:
            values, scales = quantize_rows(tensor)
            assert torch.equal(after[name], values)
            assert torch.equal(after[f"{name}_scale"], scales)
        else:
            assert torch.equal(after[name], tensor)
            assert after[name].dtype == torch.bfloat16


def test_the_configuration_tells_vllm_what_the_weights_are(made: Path, tmp_path: Path) -> None:
    from compressed_tensors.quantization import QuantizationConfig

    run(made, tmp_path / "out", "--ignore", r"re:.*layers\.1\.mlp\.(gate|up)_proj")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    said = config.pop("quantization_config")
    assert config == json.loads((made / "config.json").read_text())
    assert said["ignore"] == ["lm_head", "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"]
    group = QuantizationConfig.model_validate(said).config_groups["group_0"]
    assert (group.weights.strategy, group.weights.num_bits, group.weights.dynamic) == ("channel", 8, False)
    assert (group.input_activations.strategy, group.input_activations.dynamic) == ("token", True)
    assert tensors_of(tmp_path / "out")["model.layers.1.mlp.up_proj.weight"].dtype == torch.bfloat16


def test_tokenizer_and_licence_go_along_and_pickles_and_code_do_not(made: Path, tmp_path: Path) -> None:
    run(made, tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "LICENSE",
        "chat_template.jinja",
        MANIFEST,
    }


def test_the_server_finds_every_file_as_the_manifest_lists_it(made: Path, tmp_path: Path) -> None:
    from serving.engine.checksums import read_lists
    from serving.engine.checksums import verify as verify_folder

    run(made, tmp_path / "out")
    verify_folder(tmp_path / "out", with_hashes=True).wait()
    assert set(read_lists(tmp_path / "out")) == {file.name for file in (tmp_path / "out").iterdir()} - {MANIFEST}


def test_a_second_run_finds_everything_there_and_a_changed_file(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(made, out)
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert run(made, out) == 0
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    (out / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json is not what its tokenport-manifest\.json says"):
        check_finished(out)


def test_the_report_names_the_layers_that_lose_most(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = source / json.loads((source / "model.safetensors.index.json").read_text())["weight_map"][f"{LAYER}.weight"]
    tensors = load_file(file)
    tensors[f"{LAYER}.weight"][:, 3] *= 200
    save_file(tensors, file)
    run(source, tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith("kept: lm_head: the output embedding") for line in lines)
    worst = lines[next(number for number, line in enumerate(lines) if "lose most" in line) + 1]
    assert worst.endswith(LAYER)
    assert float(worst.split()[1]) > 4


@dataclasses.dataclass
class Plan:
    source: Any
    transform: Int8
    shards: list[Any]

    @classmethod
    def of(cls, folder: Path, max_bytes: int) -> "Plan":
        source = read_source(folder, folder.name)
        transform = Int8(choose_layers(source, []))
        return cls(source, transform, plan_shards(list(source.tensors.values()), transform, max_bytes))


def test_the_official_library_reads_what_is_written_and_every_file_keeps_its_size(made: Path, tmp_path: Path) -> None:
    plan = Plan.of(made, 16000)
    assert len(plan.shards) > 3
    record = open_output(tmp_path, {}, {"name": "tiny"})
    seen: list[int] = []
    assert write_shards(plan.shards, plan.transform, record, seen.append) == 0
    assert sum(seen) == sum(tensor.num_bytes for tensor in plan.source.tensors.values())
    for shard in plan.shards:
        assert shard.num_bytes == (tmp_path / shard.file).stat().st_size
        assert shard.num_bytes < 18000
        with safe_open(tmp_path / shard.file, "pt") as file:
            assert set(file.keys()) == {output.name for output in shard.outputs}
            assert all(list(file.get_tensor(output.name).shape) == list(output.shape) for output in shard.outputs)


PROGRAM = """
import json, sys, time
from pathlib import Path
from serving.engine.prepare.layers import Layers
from serving.engine.prepare.plan import open_output, plan_shards
from serving.engine.prepare.source import read_source
from serving.engine.prepare.transform import Int8
from serving.engine.prepare.writing import write_shards
from tests.conftest import settings_in
transform = Int8(Layers(frozenset(json.loads(sys.argv[3])), {}, "llama"))
shards = plan_shards(list(read_source(Path(sys.argv[1]), "tiny").tensors.values()), transform, 16000)
record = open_output(Path(sys.argv[2]), {}, {"name": "tiny"})
def advance(_):
    print(len(record.finished), flush=True)
    time.sleep(0.05 if len(record.finished) < 2 else 60)
write_shards(shards, transform, record, advance)
"""


def test_after_a_kill_only_the_unfinished_files_are_written_again(made: Path, tmp_path: Path) -> None:
    names = json.dumps([f"model.layers.{number}.{layer}" for number in (0, 1) for layer in LINEARS])
    command = [sys.executable, "-c", PROGRAM, str(made), str(tmp_path), names]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.strip() == "2" for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    plan = Plan.of(made, 16000)
    times = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")}
    assert set(times) == {shard.file for shard in plan.shards[:2]}
    assert (tmp_path / f"{plan.shards[2].file}.part").exists()
    assert not (tmp_path / "config.json").exists()
    record = open_output(tmp_path, {}, {"name": "tiny"})
    assert write_shards(plan.shards, plan.transform, record, lambda _: None) == 2
    for name, time_ns in times.items():
        assert (tmp_path / name).stat().st_mtime_ns == time_ns
    assert {file.name for file in tmp_path.iterdir()} == {*(shard.file for shard in plan.shards), RECORD}
    assert len(tensors_of(tmp_path)) == sum(len(shard.outputs) for shard in plan.shards)


def test_a_file_that_the_disk_gives_back_otherwise_is_not_accepted(made: Path, tmp_path: Path) -> None:
    plan = Plan.of(made, 10**9)
    write_shards(plan.shards, plan.transform, open_output(tmp_path, {}, {"name": "tiny"}), lambda _: None)
    (shard,) = plan.shards
    file = tmp_path / shard.file
    assert verify(file, shard, plan.transform)["bytes"] == shard.num_bytes
    for name in (f"{LAYER}.weight", f"{LAYER}.weight_scale", "model.norm.weight"):
        info = read_header(file)[0][name]
        whole = bytearray(file.read_bytes())
        whole[info.offset + 1] ^= 0x40
        spoilt = tmp_path / "spoilt.safetensors"
        spoilt.write_bytes(whole)
        with pytest.raises(ModelUnavailable, match="what was read back is not what was written"):
            verify(spoilt, shard, plan.transform)


def spoil(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    file = folder / json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    save_file(load_file(file) | {name: change(load_file(file)[name])}, file)


def test_a_layer_that_cannot_be_quantised_is_named(source: Path, tmp_path: Path) -> None:
    spoil(source, f"{LAYER}.weight", lambda tensor: tensor.fill_(float("nan")))
    with pytest.raises(ModelUnavailable, match=rf"{LAYER}\.weight cannot be quantised: .* keep it with --ignore"):
        run(source, tmp_path / "out")


def test_weights_of_another_shape_than_the_configuration_says_are_refused(source: Path, tmp_path: Path) -> None:
    spoil(source, f"{LAYER}.weight", lambda tensor: tensor[:16].contiguous())
    with pytest.raises(ModelUnavailable, match=rf"{LAYER}\.weight is \[16, 64\], by config\.json \[64, 64\]"):
        run(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("ignore", "told"),
    [
        (["model.layers.0.self_attn.k_prof"], "matches no layer of this model; the nearest is model.layers.0.self_attn.k_proj"),
        (["re:["], "not a regular expression"),
        ([LAYER], "vLLM computes them as one layer: --ignore all 3 of them, or none"),
        (["re:model"], "has no layer to quantise"),
    ],
)
def test_patterns_that_cannot_be_honoured_are_refused(made: Path, tmp_path: Path, ignore: list[str], told: str) -> None:
    with pytest.raises(StartError) as raised:
        run(made, tmp_path / "out", *(f"--ignore={pattern}" for pattern in ignore))
    assert told in str(raised.value)


def test_a_quantised_source_is_refused(made: Path, tmp_path: Path) -> None:
    run(made, tmp_path / "out")
    with pytest.raises(ModelUnavailable, match=r"is quantised already \(compressed-tensors\)"):
        run(tmp_path / "out", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_pickled_weights_alone_are_refused(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(made / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelUnavailable, match=r"only pytorch_model\.bin: pickled weights can run code"):
        run(folder, tmp_path / "out")


def test_an_index_that_leaves_the_folder_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(ModelUnavailable, match="no file of its own folder"):
        run(source, tmp_path / "out")


def test_a_truncated_file_is_refused(source: Path, tmp_path: Path) -> None:
    file = next(source.glob("*.safetensors"))
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(ModelUnavailable, match="is damaged: it has"):
        run(source, tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_not_touched(made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match=r"is not empty \(it holds thesis\.txt\)"):
        run(made, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    with pytest.raises(SettingsError, match="is the source itself"):
        run(made, made)


def test_a_run_with_other_settings_or_another_source_does_not_go_on(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    with pytest.raises(SettingsError, match=r"begun with other settings \(ignore was \[\] and is \['re:x'\]\)"):
        run(source, tmp_path / "out", "--ignore=re:x")
    os.utime(next(source.glob("*.safetensors")), (1, 1))
    with pytest.raises(SettingsError, match="begun from another source"):
        run(source, tmp_path / "out")


def test_settings_can_be_mended_as_long_as_nothing_is_written(source: Path, tmp_path: Path) -> None:
    layer = "model.layers.0.mlp.down_proj"
    spoil(source, f"{layer}.weight", lambda tensor: tensor.fill_(float("inf")))
    with pytest.raises(ModelUnavailable, match="keep it with --ignore"):
        run(source, tmp_path / "out")
    with pytest.raises(SettingsError):
        run(source, tmp_path / "out", "--ignore=re:[")
    assert run(source, tmp_path / "out", f"--ignore={layer}") == 0


def test_a_disk_that_is_too_small_is_told_with_both_numbers(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(0, 0, 10_000_000))
    with pytest.raises(ModelUnavailable, match=r"needs 0\.02 GB more and has 0\.01 GB"):
        run(made, tmp_path / "out")


def test_bitsandbytes_missing_is_said_before_the_model_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(StartError, match="need the package bitsandbytes, which is not installed"):
        run(tmp_path / "nothing here", tmp_path / "out", method="nf4")


@pytest.mark.parametrize(("method", "stored", "error"), [("nf4", torch.uint8, 0.15), ("llm-int8", torch.int8, 0.015)])
def test_bitsandbytes_checkpoints_are_transformers_own(made: Path, tmp_path: Path, method: str, stored: torch.dtype, error: float) -> None:
    out = tmp_path / "out"
    assert run(made, out, method=method) == 0
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["load_in_4bit"], config["load_in_8bit"]) == ("bitsandbytes", method == "nf4", method != "nf4")
    manifest = json.loads((out / MANIFEST).read_text())
    layers = [layer for entry in manifest["finished"].values() for layer in entry["layers"]]
    assert len(layers) == manifest["quantized_layers"] == 2 * len(LINEARS)
    assert all(0 < layer["relative_error"] < error for layer in layers)
    assert set(manifest["kept"]) == {"lm_head", "model.embed_tokens"}
    assert tensors_of(out)[f"{LAYER}.weight"].dtype == stored
    model = AutoModelForCausalLM.from_pretrained(out, device_map={"": "cpu"})
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    assert {file.suffix for file in out.iterdir()} == {".json", ".jinja", ".safetensors", ""}


MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
ATTENTION = {f"self_attn.{name}_proj" for name in "qkvo"}
MLP = ("gate", "up", "down")
ARCHITECTURES: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "mistral": ({}, LINEARS, set()),
    "qwen2": ({}, LINEARS, set()),
    "qwen3": ({"head_dim": 16}, LINEARS, set()),
    "phi3": ({"pad_token_id": 0}, {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}, set()),
    "mixtral": (
        {"num_local_experts": 2},
        ATTENTION | {f"block_sparse_moe.experts.{n}.w{m}" for n in (0, 1) for m in (1, 2, 3)},
        {"block_sparse_moe.gate"},
    ),
    "qwen2_moe": (
        MOE | {"shared_expert_intermediate_size": 16},
        ATTENTION | {f"mlp.{part}.{name}_proj" for part in ("shared_expert", *(f"experts.{n}" for n in range(4))) for name in MLP},
        {"mlp.gate", "mlp.shared_expert_gate"},
    ),
    "qwen3_moe": (
        MOE,
        ATTENTION | {f"mlp.experts.{n}.{name}_proj" for n in range(4) for name in ("gate", "up", "down")},
        {"mlp.gate"},
    ),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architectures_linear_layers_are_found_and_its_routers_stay(tmp_path: Path, architecture: str) -> None:
    from transformers import AutoConfig

    more, quantized, kept = ARCHITECTURES[architecture]
    config = AutoConfig.for_model(architecture, **TINY | {"num_hidden_layers": 1, "num_key_value_heads": 1}, **more)
    AutoModelForCausalLM.from_config(config, dtype=torch.float16).save_pretrained(tmp_path)
    layers = choose_layers(read_source(tmp_path, "tiny"), [])
    assert layers.quantized == {f"model.layers.0.{layer}" for layer in quantized}
    assert layers.ignore == sorted({f"model.layers.0.{layer}" for layer in kept} | {"lm_head"})


def test_a_tensor_is_read_as_the_official_library_reads_it(made: Path) -> None:
    for file in made.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            assert torch.equal(read_tensor(read_header(file)[0][name]), tensor)
