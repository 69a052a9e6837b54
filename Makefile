# Everything runs in .venv, which container/setup.sh makes and keeps in step with the locks. ARGS= is passed on to the command.
# PYTHON= names the interpreter that makes .venv; DEVICE=cpu or DEVICE=cuda overrides what the machine looks like.
# IMAGE= names the image; BUILD_ARGS= is passed on to docker's or podman's build, ENGINE= says which of them builds.
PYTHON ?= python3
export PYTHON DEVICE IMAGE ENGINE
CPU_IMAGE = $(or $(IMAGE),tokenport:cpu)
EMBEDDED_MODEL = from pathlib import Path; from serving.engine.embedded_model import ensure_model; print(ensure_model(Path(".cache/tokenport"), lambda *_: None))
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup serve test test-gpu bench-gpu lint image image-test lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## make .venv with the pinned set for this machine: CUDA where an NVIDIA driver answers, CPU otherwise
	@container/setup.sh

serve: setup ## start the server on port 8080; ARGS="--model DIR" and the like are passed on
	@exec .venv/bin/tokenport serve $(ARGS)

# Engines take all cores, and some of their tests look at the clock: they run one after the other. 5 is pytest's "none of these chosen".
test: ## run the whole test suite; ARGS="-k NAME" narrows it
	@container/setup.sh --dev
	@.venv/bin/python -m pytest -n 2 -m "not engine and not gpu" $(ARGS) || [ $$? = 5 ]
	@.venv/bin/python -m pytest -m "engine or gpu" $(ARGS) || [ $$? = 5 ]

test-gpu: ## the tests that need NVIDIA GPUs; without one they are skipped and say so
	@container/setup.sh --dev
	@.venv/bin/python -m pytest tests/gpu $(ARGS)

bench-gpu: ## FP16, INT8, FP8 and bitsandbytes of an 8B shape on this machine's GPU; ARGS="--out FILE"
	@container/setup.sh --dev
	@.venv/bin/python -m benchmarks.precision_gpu "$$(.venv/bin/python -c '$(EMBEDDED_MODEL)')" --out gpu.json $(ARGS)

lint: ## ruff, mypy, shellcheck, hadolint: the one definition of lint
	@container/setup.sh --dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/shellcheck .ci/run container/serve container/*.sh container/locks/*.sh
	@.venv/bin/hadolint Dockerfile

image: ## build the image tokenport:cuda with docker or podman; DEVICE=cpu builds tokenport:cpu
	@container/image.sh $(BUILD_ARGS) $(ARGS)

image-test: ## build the CPU image and hold it to SageMaker's contract; ARGS="--model DIR" and the like go to container.conformance
	@container/setup.sh --dev
	@DEVICE=cpu IMAGE=$(CPU_IMAGE) container/image.sh $(BUILD_ARGS)
	@.venv/bin/python -m container.conformance --image $(CPU_IMAGE) --model "$$(.venv/bin/python -c '$(EMBEDDED_MODEL)')" $(ARGS)

lock: ## compile container/locks; ARGS=--upgrade takes newer versions
	@container/locks/compile.sh $(ARGS)

clean: ## remove .venv and every cache
	@rm -rf .venv .venv-lock .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
