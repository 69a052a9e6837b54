# The image, for NVIDIA GPUs (target cuda, the last one: a plain build makes it) and for CPUs (target cpu). `make image` builds either.
# The CPU's stages come first, since builders without BuildKit make every stage above the target.
#
# BASE_IMAGE may be any Debian or Ubuntu with Python 3.11 to 3.14. None with CUDA in it is needed: the CUDA 13 libraries are wheels of the lock,
# the driver's come from the host. A private index or CA reaches pip, and nothing of it the image, through build secrets:
#   --secret id=pip,src=pip.conf   is /etc/pip.conf while packages are installed
#   --secret id=ca,src=ca.crt      is /run/secrets/ca, for pip.conf to name: cert = /run/secrets/ca
ARG BASE_IMAGE=docker.io/library/debian:bookworm-20251229-slim


FROM ${BASE_IMAGE} AS base
# Versions are the release's: Debian keeps no older one to pin. libnuma1: vLLM's CPU build binds its threads with it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libnuma1 python3 \
    && rm -rf /var/lib/apt/lists/*


# What either target's packages are installed in. Only their folder leaves it.
FROM base AS builder
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tokenport
COPY container/setup.sh container/
COPY container/locks/source.txt container/locks/


# Everything about how the server runs; nothing that takes long to make.
FROM base AS runtime
WORKDIR /opt/tokenport
# /tmp is all that need be writable, for any user, named in /etc/passwd or not. No model is fetched unless one is named.
# hadolint takes the TOKEN in TOKENPORT for a secret.
# hadolint ignore=DL3064
ENV HOME=/tmp \
    LOGNAME=tokenport \
    PATH=/opt/tokenport/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    TOKENPORT_CACHE_DIR=/tmp/tokenport \
    TOKENPORT_EMBEDDED_MODEL=false \
    TOKENPORT_HOST=0.0.0.0 \
    DO_NOT_TRACK=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    VLLM_NO_USAGE_STATS=1
LABEL org.opencontainers.image.title="Tokenport" \
      org.opencontainers.image.description="A self-hosted LLM serving container around vLLM" \
      org.opencontainers.image.version="0.1.0" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.bidirectional-streaming="true"
EXPOSE 8080
STOPSIGNAL SIGTERM
# For docker and podman; SageMaker asks /ping itself. A bare socket starts in a fifth of the time of an HTTP client. It knows the port from the
# environment only: a server started with --port needs a health check of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m --retries=3 CMD ["/opt/tokenport/.venv/bin/python", "-I", "-S", "-c", \
    "import os, socket, sys; port = os.environ.get('TOKENPORT_PORT') or os.environ.get('SAGEMAKER_BIND_TO_PORT') or 8080; s = socket.create_connection(('127.0.0.1', int(port)), 4); s.sendall(b'GET /ping HTTP/1.0\\r\\n\\r\\n'); sys.exit(s.recv(12)[9:] != b'200')"]
# No shell in between: the server is PID 1 and gets the signals. -P: a folder named serving where the caller stands is not the program.
ENTRYPOINT ["/opt/tokenport/.venv/bin/python", "-P", "-m", "serving"]
CMD ["serve"]


FROM builder AS cpu-packages
COPY container/locks/cpu.txt container/locks/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip \
    DEVICE=cpu container/setup.sh --packages


FROM runtime AS cpu
COPY --from=cpu-packages /opt/tokenport/ ./
COPY pyproject.toml ./
COPY serving/ serving/
COPY benchmarks/ benchmarks/
RUN DEVICE=cpu container/setup.sh && .venv/bin/python -m compileall -q serving benchmarks


FROM builder AS cuda-packages
COPY container/locks/cuda.txt container/locks/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip \
    DEVICE=cuda container/setup.sh --packages


FROM runtime AS cuda
# The one compiler left in: Triton, on which half of vLLM's GPU kernels stand, compiles a launcher in C against Python.h for each of them when
# it is first used. (On a CPU nothing is compiled: the engine runs eagerly there.)
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
# For the NVIDIA container runtime. Its own check of the driver is off: it would keep the container from starting, and thus from saying what is wrong.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_DISABLE_REQUIRE=true
# CUDA 13 needs driver 580 or newer. SageMaker's default hosts are older; this one, named as the production variant's InferenceAmiVersion, has it.
LABEL tokenport.sagemaker.inference-ami-version="al2023-ami-sagemaker-inference-gpu-4-1"
COPY --from=cuda-packages /opt/tokenport/ ./
COPY pyproject.toml ./
COPY serving/ serving/
COPY benchmarks/ benchmarks/
RUN DEVICE=cuda container/setup.sh && .venv/bin/python -m compileall -q serving benchmarks
