# `make demo` and `make test` do all the set-up themselves on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint bench clean

# The base install, without torch. Re-made only when what is installed changes.
$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.base
	mkdir -p demo/slides
	$(BIN)/wsiseg synth demo/slides/kidney.tif --size 12000x9000 --seed 1
	$(BIN)/wsiseg run demo/slides -o demo/submission.csv
	$(BIN)/wsiseg rle diff demo/submission.csv demo/slides/kidney.truth.csv
	@echo "The mask of demo/slides/kidney.tif is in demo/submission.csv; draw it with:"
	@echo "  $(BIN)/wsiseg rle decode demo/submission.csv demo/slides/kidney.tif --downscale 8 -o demo/mask.png"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.all

clean:
	rm -rf $(VENV) demo
