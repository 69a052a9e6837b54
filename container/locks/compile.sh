#!/usr/bin/env bash
# Compiles the *.in files into the locks beside them. CUDA first: its engine pins the most, and the other two must agree with it.
# Versions already locked stay unless an argument says otherwise: --upgrade, or --upgrade-package NAME.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."

uv_version=0.13.9
tools=.venv-lock
[ -x $tools/bin/uv ] || "${PYTHON:-python3}" -m venv $tools
$tools/bin/python -m pip install -q --disable-pip-version-check "uv==$uv_version"

# uv reads none of pip's settings. A machine's own folder of wheels is not passed on: a lock must come out the same everywhere.
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="$PIP_CERT"
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="$PIP_INDEX_URL"

compile() { # OUTPUT [option...]
    $tools/bin/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --no-build --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file "container/locks/$1.txt" \
        "${@:2}" "container/locks/$1.in"
    # Every line carries the one platform that pyproject.toml names and setup.sh checks: without it the lock can be read.
    local platform="python_full_version < '3.15' and implementation_name == 'cpython' and platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'"
    sed -i -e "s/ ; $platform \\\\$/ \\\\/" -e "s/ and $platform \\\\$/ \\\\/" "container/locks/$1.txt"
}

compile cuda "$@"
compile cpu --override container/locks/cpu-overrides.txt --constraint container/locks/cuda.txt "$@"
compile dev --override container/locks/cpu-overrides.txt --constraint container/locks/cuda.txt --constraint container/locks/cpu.txt "$@"
