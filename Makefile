# Two commands bring a fresh clone to life: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo lint types house test test-all
setup: .venv/ready
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
demo: setup
	$(BIN)/medseg demo
lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
types: setup
	$(BIN)/mypy
house: setup
	$(BIN)/lint-imports
test: lint types house
	$(BIN)/pytest -m "not slow" -n 2
test-all: lint types house
	$(BIN)/pytest -n 2
