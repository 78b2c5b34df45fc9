# What a clone needs: Python 3.11+, make, git. Everything else comes into .venv/ (and uv into .uv/, where it is missing).

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults fuzz soak bench check format docs clean

PYTHON ?= python3
UV_VERSION := 0.13.9
# Python comes from the machine, never from a download behind the reader's back.
export UV_PYTHON_DOWNLOADS ?= never

# An installed uv serves if it accepts this project (pyproject.toml: required-version); otherwise the clone gets its own.
UV := $(shell uv cache dir >/dev/null 2>&1 && command -v uv || echo .uv/bin/uv)
RUN = $(UV) run --no-sync

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(filter .uv/bin/uv,$(UV)) ## Install what uv.lock names into .venv/
	@$(UV) sync --frozen --all-extras --compile-bytecode

demo: setup ## Train three models, serve them through a real Kafka broker, check every answer (DEMO="--keep" leaves it running)
	@$(RUN) loadonce demo $(DEMO)

test: setup ## Run every test, on a real broker with real models (TESTS="tests/unit -k tensor" narrows it)
	@$(RUN) pytest $(TESTS)

fuzz: setup ## Push a million mutated records through decoding, and 50,000 through a broker (SEED=7 FROM=0 RECORDS=1000000)
	@FUZZ_SEED=$(or $(SEED),random) FUZZ_FROM=$(or $(FROM),0) FUZZ_RECORDS=$(or $(RECORDS),1000000) \
		FUZZ_BROKER_RECORDS=$(or $(RECORDS),50000) $(RUN) pytest -n 0 -s tests/fuzz

soak: setup ## Kill, stop and swap things at random under load, then account for every job (MINUTES=20 SEED=7 DELIVERY=at-least-once)
	@$(RUN) python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(DELIVERY),--delivery $(DELIVERY))

test-faults: setup ## The whole table of kill points and broker losses, on three nodes, for both deliveries (about 40 minutes)
	@FAULTS=all $(RUN) pytest tests/faults

bench: setup ## Measure, side by side in one run (BENCH=seed_loops, ceilings, stages, swaps, isolation or memory)
	@$(RUN) python -m benchmarks.$(or $(BENCH),seed_loops)

check: setup ## Lint, format, types, arrows between the packages, drift of the generated documents
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python -m schemas.documents --check

format: setup ## Put imports and layout right
	$(RUN) ruff check --fix --select I
	$(RUN) ruff format

docs: setup ## Write the pages and documents that are generated from the code
	$(RUN) python -m schemas.documents
	$(RUN) python -c "from consumer.settings import reference; print(reference(), end='')" > docs/settings.md

clean: ## Remove what setup and the tools left in the clone
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
