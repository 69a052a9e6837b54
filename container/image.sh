#!/usr/bin/env bash
# Builds the image, as `make image` does. Arguments are passed on to the build.
# Environment: DEVICE=cuda (the default) or cpu; IMAGE names the result, tokenport:$DEVICE if unset; ENGINE=docker or podman, else the one at work here.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

fail() { echo "image: $*" >&2; exit 1; }

device=${DEVICE:-cuda}
[[ $device =~ ^(cpu|cuda)$ ]] || fail "DEVICE=$device is not cpu or cuda"

engine=${ENGINE:-}
if [ -z "$engine" ]; then
    # A docker command alone builds nothing: its daemon must answer.
    if docker info >/dev/null 2>&1; then engine=docker; elif command -v podman >/dev/null; then engine=podman; fi
    [ -n "$engine" ] || fail "no docker daemon answers and there is no podman: install one, or name it with ENGINE="
fi

options=(--target "$device" --tag "${IMAGE:-tokenport:$device}")
# Podman's own format has no health check.
[[ ${engine##*/} != podman ]] || options+=(--format docker)
if revision=$(git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null); then
    options+=(--label "org.opencontainers.image.revision=$revision")
fi
exec "$engine" build "${options[@]}" "$@" .
