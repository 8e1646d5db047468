# make demo      real particles to a sharpened map, in demo/
# make demo-sta  simulated tilt series to a map, in demo-sta/
# make test      everything that CI checks
# make lint      the checks that need no test data
# make docs      the manual as a site, in site/
# make bench     the table of ratios against RELION, side by side; 20 minutes (benchmarks/table.py --quick: 5)
# make test-oldest  tests of the plugin with the oldest versions that pyproject.toml allows
# make clean     removes what the others made

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo demo-sta test test-oldest lint docs bench pictures clean system

demo: $(INSTALLED) system
	@$(BIN)/python scripts/demo.py demo

demo-sta: $(INSTALLED) system
	@$(BIN)/python scripts/demo_sta.py demo-sta

test: lint docs system
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari-cryorefine

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test-oldest: $(INSTALLED) system
	sh scripts/test_oldest.sh $(BIN) .venv-oldest

bench: $(INSTALLED)
	@$(BIN)/python benchmarks/table.py

pictures: $(INSTALLED) system
	$(BIN)/python scripts/pictures.py
	$(BIN)/python scripts/pictures_sta.py

$(INSTALLED): pyproject.toml scripts/environment.sh
	@sh scripts/environment.sh $(VENV)
	@touch $@

system:
	@sh scripts/system_libraries.sh

clean:
	rm -rf $(VENV) .venv-oldest demo demo-sta site build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
