#!/usr/bin/env bash
# Writes docs/conformance.md anew: checks and fault table for this checkout, with three ranks too, and for bare vLLM beside it.
# With IMAGE=tag the image as well. Needs root, for namespaces of its own (no network, read-only files), a quiet machine, half an hour.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
model=${1:?usage: container/publish-conformance.sh MODEL}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT

check() { # FILE argument...: a check that fails is a result, not an end
    local file=$1; shift
    .venv/bin/python -m container.conformance --model "$model" --markdown "$parts/$file.md" "$@" || [ $? = 1 ]
}

check 1-process --command "container/serve serve"
check 2-workers --command "container/serve serve" --env TOKENPORT_TENSOR_PARALLEL_SIZE=3 --only kill-worker stop-worker
sed -i '1s/$/, three ranks/' "$parts/2-workers.md"
# Tokenport's plugin is installed beside vLLM and would be loaded; vLLM's own default for the KV cache is all of the memory.
check 3-vllm --command ".venv/bin/python -m vllm.entrypoints.openai.api_server --model {model} --port {port} --enforce-eager \
--max-model-len 4096 --kv-cache-memory-bytes 1G" --profile generic --env VLLM_PLUGINS= --env HOME=/tmp
[ -z "${IMAGE:-}" ] || check 4-image --image "$IMAGE" --no-faults

{
    cat <<'INTRO'
# Conformance with SageMaker's contract

Written by `container/publish-conformance.sh MODEL`; the tool is `python -m container.conformance`. It behaves towards a server as SageMaker does: its
environment, a model folder that cannot be written, 2 s for a ping, 60 s for an answer, its headers, 30 s between SIGTERM and SIGKILL, no network, a
read-only root file system. Each row names the sentence of the contract, with its source where it is public; the second table of a section says what
happened when processes were killed or stopped. Three ranks are tensor parallel over the CPU.

INTRO
    echo "$(date -u +%F), $(.venv/bin/tokenport version), $(lscpu | sed -n 's/^Model name: *//p'), $(nproc) CPUs, model $(basename "$model")."
    for part in "$parts"/*.md; do echo; cat "$part"; done
} >docs/conformance.md
