#!/usr/bin/env bash
# Makes .venv: the locked packages for this machine, the project itself and, with --dev, what lint and tests need; with --packages the first only.
# .venv/installed lists the finished steps. It is away while a step runs, so an interrupted installation is never taken for a complete one
# but made anew, and so is one whose lock has changed: pip cannot be trusted to repair a package it was stopped in.
# Environment: PYTHON (default python3) makes the .venv; DEVICE=cpu or cuda overrides what the machine looks like.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

PYTHON=${PYTHON:-python3}
installed=.venv/installed
# On PyTorch's index only, hence outside the lock; pinned by version and not by hash, since a machine's own wheel of it may be another build.
cpu_torch=torch==2.13.0+cpu
cpu_torch_index=https://download.pytorch.org/whl/cpu

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"; }
hash_of() { cat "$@" | sha256sum | cut -c1-16; }
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }
install_locked() { pip install -qq --no-deps --only-binary :all: --require-hashes --no-compile -r "$1"; }

choose_device() {
    case ${DEVICE:-} in
        cpu | cuda) echo "$DEVICE" ;;
        "") if [[ $(nvidia-smi -L 2>/dev/null) == *"GPU "* ]]; then echo cuda; else echo cpu; fi ;;
        *) fail "DEVICE=$DEVICE is not cpu or cuda" ;;
    esac
}

need() { # PACKAGE CODE: what a minimal Debian lacks and the code finds once the package is there; root need not be asked to install it
    ! "$PYTHON" -c "$2" 2>/dev/null || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing the system package $1"
        # The lists of a fresh machine are empty or old, which only the installation tells.
        { apt_install "$1" || { apt-get update && apt_install "$1"; }; } </dev/null >/dev/null 2>&1 || true
    fi
    "$PYTHON" -c "$2" 2>/dev/null || fail "the system package $1 is missing: sudo apt-get install $1, then the same command again"
}

check_machine() {
    [ "$(uname -sm)" = "Linux x86_64" ] || fail "the locked packages are for Linux x86_64; this is $(uname -sm)"
    command -v "$PYTHON" >/dev/null || fail "no $PYTHON here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"
    local version; version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' ||
        fail "$PYTHON is $version; the engine needs Python 3.11 to 3.14: make PYTHON=/path/to/python3.11"
    need "python$version-venv" 'import ensurepip, venv'
    if [ "$device" = cpu ]; then need libnuma1 'import ctypes; ctypes.CDLL("libnuma.so.1")'; fi
}

step() { # NAME CONTENT command...: runs the command unless its content is what is installed
    local name=$1 content=$2 others; shift 2
    ! grep -qxF "$name $content" $installed 2>/dev/null || return 0
    others=$(grep -v "^$name " $installed 2>/dev/null || true)
    rm -f $installed
    "$@"
    printf '%s\n' "$others" "$name $content" | sed '/^$/d' >$installed.new
    mv $installed.new $installed
}

install_runtime() {
    say "installing the $device set into .venv (a few minutes)"
    "$PYTHON" -m venv .venv
    if [ "$device" = cpu ]; then install_cpu_torch; fi
    install_locked "container/locks/$device.txt"
    install_from_source
    compile_bytecode
}

install_cpu_torch() {
    local options=(install --quiet --no-deps --only-binary :all: --no-compile)
    # The machine's own sources first: a folder of wheels may hold it, and PyPI, which does not, says so at once.
    pip "${options[@]}" "$cpu_torch" 2>/dev/null || pip "${options[@]}" --index-url $cpu_torch_index "$cpu_torch"
}

install_from_source() {
    pip install --quiet --no-deps --no-build-isolation --use-pep517 --require-hashes --no-compile -r container/locks/source.txt
}

compile_bytecode() { # on every core, and without what a start never imports; some packages ship templates that are not Python, hence no failure
    .venv/bin/python -m compileall -q -j 0 -x '/tests?/|/transformers/models/(?!auto/)' .venv/lib >/dev/null 2>&1 || true
}

install_project() { # compat: one path entry, so that a package added later is found without another installation
    pip install --quiet --no-deps --no-build-isolation --no-index --config-settings editable_mode=compat -e .
}

# Two make commands at once must not install into the same .venv.
exec 9<container/locks
flock 9

device=$(choose_device)
runtime="$device $(hash_of "container/locks/$device.txt" container/locks/source.txt) $cpu_torch $PWD"
grep -qxF "runtime $runtime" $installed 2>/dev/null || { check_machine; rm -rf .venv; }
step runtime "$runtime" install_runtime
[ "${1:-}" != --packages ] || exit 0
step project "$(hash_of pyproject.toml)" install_project
if [ "${1:-}" = --dev ]; then step dev "$(hash_of container/locks/dev.txt)" install_locked container/locks/dev.txt; fi
