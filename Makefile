# `make demo` and `make test` do everything, set-up included. Variables of the set-up: see setup.sh.
export PYTHON TORCH METAWORLD_PYTHON LIBERO_PYTHON

BIN := .venv/bin
STAMP := .venv/set-up-done

STAMP_METAWORLD := .venv-metaworld/set-up-done
STAMP_LIBERO := .venv-libero/set-up-done

.PHONY: setup demo smol metaworld libero test test-learning check docs clean

setup: $(STAMP)

# An interpreter or a torch that is named on the command line is a wish for another set-up.
ifneq ($(filter command,$(origin PYTHON) $(origin TORCH)),)
.PHONY: $(STAMP)
endif
ifeq ($(origin METAWORLD_PYTHON),command line)
.PHONY: $(STAMP_METAWORLD)
endif
ifeq ($(origin LIBERO_PYTHON),command line)
.PHONY: $(STAMP_LIBERO)
endif

$(STAMP): pyproject.toml setup.sh
	./setup.sh
	@touch $@

demo: setup
	$(BIN)/llamarm train sft_demo --out runs/demo

smol: setup
	$(BIN)/python -m vla_model.backbones.smol

metaworld: $(STAMP_METAWORLD)

libero: $(STAMP_LIBERO)

$(STAMP_METAWORLD): setup_suite.sh | setup
	./setup_suite.sh metaworld
	@touch $@

$(STAMP_LIBERO): setup_suite.sh | setup
	./setup_suite.sh libero
	@touch $@

# Two processes, each with the tests of whole files, whose models are too small for more than one thread.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

test-learning: setup
	$(BIN)/pytest -m "learning or long"

# The documentation is checked by building it: strictly, with its links.
check: setup docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check

docs: setup
	$(BIN)/python -m docs.site

clean:
	rm -rf .venv .venv-metaworld .venv-libero build dist llamarm.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
