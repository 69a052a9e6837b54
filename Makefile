# Everything runs in .venv, which container/setup.sh makes and keeps in step with the locks. ARGS= is passed on to the command.
# PYTHON= names the interpreter that makes .venv; DEVICE=cpu or DEVICE=cuda overrides what the machine looks like.
PYTHON ?= python3
export PYTHON DEVICE
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup serve test lint lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## make .venv with the pinned set for this machine: CUDA where an NVIDIA driver answers, CPU otherwise
	@container/setup.sh

serve: setup ## start the server on port 8080; ARGS="--model DIR" and the like are passed on
	@exec .venv/bin/tokenport serve $(ARGS)

test: ## run the whole test suite; ARGS="-k NAME" narrows it
	@container/setup.sh --dev
	@.venv/bin/python -m pytest $(ARGS)

lint: ## ruff, ruff format, mypy: the one definition of lint
	@container/setup.sh --dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

lock: ## compile container/locks; ARGS=--upgrade takes newer versions
	@container/locks/compile.sh $(ARGS)

clean: ## remove .venv and every cache
	@rm -rf .venv .venv-lock .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
