# `make demo` and `make test` do everything, set-up included. Variables of the set-up: see setup.sh.
export PYTHON TORCH

BIN := .venv/bin
STAMP := .venv/set-up-done

.PHONY: setup demo smol test test-learning check clean

setup: $(STAMP)

$(STAMP): pyproject.toml setup.sh
	./setup.sh
	@touch $@

demo: setup
	$(BIN)/llamarm train sft_demo --out runs/demo

smol: setup
	$(BIN)/python -m vla_model.smol

test: setup
	$(BIN)/pytest

test-learning: setup
	$(BIN)/pytest -m learning

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check

clean:
	rm -rf .venv build dist llamarm.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
