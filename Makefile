# make quickstart   train, evaluate and look at a model, from nothing
# make test         the whole suite
# make check        lint, format check, type check
# PYTHON chooses the interpreter: make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
BIN := $(VENV)/bin

.PHONY: quickstart test test-slow check install

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

quickstart: install
	$(BIN)/transformer train --config configs/quickstart.py --workdir $(RUN)
	$(BIN)/transformer evaluate --model $(RUN) --show 10
	$(BIN)/transformer plot --model $(RUN)
	@echo
	@echo "What next:"
	@echo "  translate     echo 'Tuesday, March 3, 2026' | $(BIN)/transformer translate --model $(RUN)"
	@echo "  watch         open $(RUN)/learning_curve.png and $(RUN)/attention.png"
	@echo "  your own text $(BIN)/transformer train --config configs/text.py --workdir runs/mine \\"
	@echo "                    --config.data.train_source=FILE --config.data.train_target=FILE"
	@echo "  all options   $(BIN)/transformer --help, README.md"

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
