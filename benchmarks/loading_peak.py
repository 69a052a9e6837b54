"""The most memory that the process which loads a model holds on the way: INT8 while loading beside 16 bit, on a random model.

    python -m benchmarks.loading_peak MODEL_FOLDER --out benchmarks/results/FILE.json

MODEL_FOLDER lends its tokenizer; the model is made, of about 2 GB in BF16, once in several files and once in one. The peak is the
largest of what is seen on the way and the kernel's own mark (VmHWM), from when the model begins to be built until the server is ready.
Mapped pages of the checkpoint's files count in it, which the kernel takes back when memory is short; anonymous memory is told beside it.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine.servers import SERVE, Contestant, Running, ServerFailed, is_up, ledger, starting
from benchmarks.result_file import keep

# Small enough that what comes after loading, the KV cache and warming up, does not hide the peak.
_SIZES = ["--max-model-len", "256", "--max-num-batched-tokens", "256", "--max-num-seqs", "4", "--kv-cache-memory-bytes", "50M"]
_VARIANTS: dict[str, list[str]] = {"16 bit": [], "int8": ["--quantization", "int8"]}
_FILES = {"several files": "400MB", "one file": "10GB"}
_MAKE = """
import sys
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(LlamaConfig(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
                                     num_key_value_heads=4, vocab_size=len(tokenizer), tie_word_embeddings=True))
for folder, size in zip(sys.argv[2::2], sys.argv[3::2]):
    model.save_pretrained(folder, max_shard_size=size)
    tokenizer.save_pretrained(folder)
"""
_BUILDING = "building the model"
_POLL_S = 0.01
_DEADLINE_S = 500.0


def run(folders: dict[str, Path], rounds: int, log: Path) -> Iterator[dict[str, Any]]:
    """One row for each start."""
    for number in range(1, rounds + 1):
        for files, folder in folders.items():
            weights_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            for name, words in _VARIANTS.items():
                with starting(Contestant(name, [*SERVE, *_SIZES, *words]), str(folder), log) as server:
                    row = watch(server)
                yield {"variant": name, "files": files, "round": number, "checkpoint_bytes": weights_bytes, **row}


def watch(server: Running) -> dict[str, Any]:
    """Bytes of the process that loads: before, at the peak, and when the server is ready; `peak_bytes` and `peak_anonymous_bytes`
    need not be of one moment.

    Raises:
        ServerFailed: it did not become ready.
    """
    before: dict[int, dict[str, int]] = {}
    peaks: dict[int, dict[str, int]] = {}
    while not is_up(server.url):
        if server.child.poll() is not None or time.monotonic() - server.started > _DEADLINE_S:
            raise ServerFailed(f"{server.name} is not ready: {server.last_words()}")
        if not before and _phase(server.url) == _BUILDING:
            before = {process.pid: _sizes(process.pid) for process in server.processes()}
            for pid in before:
                # The kernel forgets the peak so far (proc(5)).
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        for pid, first in before.items():
            peaks[pid] = {name: max(size, peaks.get(pid, first)[name]) for name, size in _sizes(pid).items() if name in first}
        time.sleep(_POLL_S)
    if not before:
        raise ServerFailed(f"{server.name}: nothing was seen of the phase in which the model is built")
    after = {pid: _sizes(pid) for pid in before}
    # The one of the server's processes that holds the model.
    pid = max(after, key=lambda pid: after[pid]["VmHWM"])
    device = (ledger(server.url) or {"devices": [{}]})["devices"][0]
    return {
        "before_bytes": before[pid]["VmRSS"],
        "peak_bytes": max(after[pid]["VmHWM"], peaks[pid]["VmRSS"]),
        "marked_peak_bytes": after[pid]["VmHWM"],
        "before_anonymous_bytes": before[pid]["RssAnon"],
        "peak_anonymous_bytes": peaks[pid]["RssAnon"],
        "ready_bytes": after[pid]["VmRSS"],
        "weights_bytes": device.get("weights_bytes"),
    }


def _phase(url: str) -> str | None:
    with contextlib.suppress(httpx.HTTPError, ValueError):
        body = httpx.get(f"{url}/ping", timeout=5).json()
        return body.get("phase") if isinstance(body, dict) else None
    return None


def _sizes(pid: int) -> dict[str, int]:
    """Bytes by the names of /proc/PID/status."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Of each variant and layout of files: the most that loading added to the process in any round, beside the checkpoint's size."""
    table: dict[str, dict[str, int]] = {}
    for row in rows:
        of = table.setdefault(f"{row['variant']}, {row['files']}", {"added_bytes": 0, "added_anonymous_bytes": 0})
        of["checkpoint_bytes"] = row["checkpoint_bytes"]
        of["weights_bytes"] = row["weights_bytes"]
        of["added_bytes"] = max(of["added_bytes"], row["peak_bytes"] - row["before_bytes"])
        of["added_anonymous_bytes"] = max(of["added_anonymous_bytes"], row["peak_anonymous_bytes"] - row["before_anonymous_bytes"])
    return table


def main() -> None:
    """Make the model, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a tokenizer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, default=Path("/dev/null"), help="where the servers' output goes")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="tokenport-"))
    try:
        folders = {name: work / name.replace(" ", "-") for name in _FILES}
        made = [word for name, folder in folders.items() for word in (str(folder), _FILES[name])]
        subprocess.run([sys.executable, "-c", _MAKE, options.model, *made], check=True)
        command = f"python -m benchmarks.loading_peak MODEL_FOLDER --rounds {options.rounds}"
        head = {"schema_version": 1, "command": command, "model": "Llama, random, 22 layers of 2048, MLP 5632, tied embedding"}
        keep(options.out, head, run(folders, options.rounds, options.log), summary)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
