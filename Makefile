# Set-up and the two things that everybody does. `make demo` and `make test` need Python 3.11 only.
# With CPU=1, PyTorch comes without its libraries for GPUs.
PYTHON ?= python3
CPU ?=
QUICK ?=
TORCH_CPU = https://download.pytorch.org/whl/cpu
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint format docs clean

demo: $(VENV)/.installed
	$(BIN)/hdzoo sample --output samples/demo.png
	@echo "64 digits: $(CURDIR)/samples/demo.png"

test: $(VENV)/.tests-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pictures are made once and kept in docs/.cache; with QUICK=1 none is made.
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 HDZOO_DOCS_QUICK=$(QUICK) $(BIN)/mkdocs build --strict
	@echo "$(CURDIR)/build/site/index.html"

clean:
	rm -rf $(VENV) samples .pytest_cache .ruff_cache .mypy_cache

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hdzoo needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(if $(CPU),$(BIN)/python -m pip install --quiet --disable-pip-version-check torch torchvision --index-url $(TORCH_CPU))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.tests-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]" \
		./plugins/hdzoo-example-sampler ./plugins/hdzoo-efficientnet-lite0 \
		./plugins/hdzoo-walk-jump ./plugins/hdzoo-multimeasurement \
		./plugins/hdzoo-stochastic-localization ./plugins/hdzoo-reverse-diffusion \
		./plugins/hdzoo-binary ./plugins/hdzoo-energy
	touch $@

$(VENV)/.dev-installed: $(VENV)/.tests-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

$(VENV)/.docs-installed: $(VENV)/.tests-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@
