# Two commands do everything on a machine with Python 3.11+ and make: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Extra words for pip when it fetches torch, such as an index of builds without CUDA.
TORCH_PIP_ARGS ?=
# Extra words for pytest, such as `make test PYTEST_ARGS="-k webhooks"`.
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
ONLY ?=
MINUTES ?= 10
SEED ?= 0

STAMP := $(VENV)/.installed
REQUIREMENTS := $(wildcard requirements/*)

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-fast test-faults soak check format openapi migrate bench true-size env base-model clean

help:  ## Show these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv and install everything, pinned

$(STAMP): $(REQUIREMENTS) pyproject.toml
	@VENV="$(VENV)" PYTHON="$(PYTHON)" TORCH_PIP_ARGS="$(TORCH_PIP_ARGS)" bash requirements/install
	@touch $@

demo: setup  ## Make a character LoRA from one picture, on this machine; results in demo-output/
	@$(BIN)/python -m embedded demo

serve: setup  ## Run the whole service here until Ctrl-C; prints its URL and an API key
	@$(BIN)/python -m embedded serve

test: setup  ## Run all tests, with real servers
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not long" --durations 15 $(PYTEST_ARGS)

test-fast: setup  ## Run the tests that are quick and need no server
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not servers and not slow" --durations 5 $(PYTEST_ARGS)

test-faults: setup  ## Break the service in every way, on SQLite and Postgres; prints the table of docs/reliability.md
	@$(BIN)/python -m pytest tests/faults -m "not soak" --durations 5 $(PYTEST_ARGS)

soak: setup  ## Run all faults at random for MINUTES=10; SEED=n repeats a run
	@$(BIN)/python -m pytest tests/faults/test_soak.py -s --minutes $(MINUTES) --seed $(SEED) $(PYTEST_ARGS)

check: setup  ## Check style, types and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup  ## Put the code in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

openapi: setup  ## Write openapi.yaml from the routes
	@$(BIN)/python -m api.spec > openapi.yaml.part && mv openapi.yaml.part openapi.yaml

migrate: setup  ## Bring the tables of BOOTLORA_DATABASE_URL up to date
	@$(BIN)/python -m shared.admin migrate

# malloc should keep the memory of large tensors instead of returning it to the system: this saves a fifth of the time.
bench true-size base-model: export MALLOC_MMAP_THRESHOLD_ = 4294967296
bench true-size base-model: export MALLOC_TRIM_THRESHOLD_ = 4294967296
bench true-size: export OMP_NUM_THREADS ?= 1  # like the workers of `make serve`

bench: setup  ## Run the benchmarks; ONLY=name for one of them
	@$(BIN)/python -m benchmarks ONLY=$(ONLY)

true-size: setup  ## Try SD 1.5 and SDXL at their true size, on a CPU; ONLY=sd15 for one of them
	@$(BIN)/python -m benchmarks.true_size ONLY=$(ONLY)

env:  ## Write .env with fresh secrets, for docker compose
	@test ! -e .env || { echo ".env is there already; remove it to get new secrets (the old data then stays locked)"; exit 1; }
	@umask 077 && $(PYTHON) docker/environment.py > .env && echo "wrote .env"

base-model: setup  ## Train the tiny base model that ships, from nothing
	@$(BIN)/python -m chibi_lab.train

clean:  ## Remove everything that was made here, also .venv; keep data/ with your projects
	rm -rf $(VENV) .venv-client demo-output bench-output runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
