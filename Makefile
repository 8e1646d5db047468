# make demo      real particles to a sharpened map, in demo/
# make demo-sta  simulated tilt series to a map, in demo-sta/
# make test      everything that CI checks
# make lint      the checks that need no test data
# make bench     ratios against other programs, side by side
# make clean     removes what the others made

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo demo-sta test lint bench pictures clean system

demo: $(INSTALLED) system
	@$(BIN)/python scripts/demo.py demo

demo-sta: $(INSTALLED) system
	@$(BIN)/python scripts/demo_sta.py demo-sta

test: lint system
	$(BIN)/python -m pytest -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari-cryorefine

bench: $(INSTALLED)
	@for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

pictures: $(INSTALLED) system
	$(BIN)/python scripts/pictures.py
	$(BIN)/python scripts/pictures_sta.py

$(INSTALLED): pyproject.toml scripts/environment.sh
	@sh scripts/environment.sh $(VENV)
	@touch $@

system:
	@sh scripts/system_libraries.sh

clean:
	rm -rf $(VENV) demo demo-sta build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
