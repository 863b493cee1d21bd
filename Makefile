# `make demo` and `make test` do all the set-up themselves on a fresh machine with Python 3.11 or newer.
comma  := ,
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The tests of training and of engines from checkpoints need torch (5.5 GB); continuous integration has it, others skip
# them by name. `make test TORCH=1` runs all.
TORCH  ?= $(CI)
EXTRAS := dev,cluster$(if $(TORCH),$(comma)train)

.PHONY: demo test lint bench clean

# The base install, without torch. Re-made only when what is installed changes.
$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev$(if $(TORCH),-torch): $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# The tests of clusters and of the report use a real Slurm and a real browser: from Debian's packages, where this is root
# on Debian; elsewhere those tests are skipped by name.
$(VENV)/.system: $(VENV)/.base
	bash tests/install_system.sh
	touch $@

demo: $(VENV)/.base
	mkdir -p demo/slides
	$(BIN)/wsiseg synth demo/slides/kidney.tif --size 12000x9000 --seed 1
	$(BIN)/wsiseg run demo/slides -o demo/submission.csv --save overlay
	$(BIN)/wsiseg rle diff demo/submission.csv demo/slides/kidney.truth.csv
	@echo "The masks are in demo/submission.csv; a picture of the slide with what was found on it is in"
	@echo "demo/submission.csv.outputs/kidney.overlay.png"

lint: $(VENV)/.dev$(if $(TORCH),-torch)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(VENV)/.system
	$(BIN)/python -m pytest -n 2 --dist loadgroup

bench: $(VENV)/.dev$(if $(TORCH),-torch)
	$(BIN)/python -m benchmarks.all

clean:
	rm -rf $(VENV) demo
