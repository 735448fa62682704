# The project's commands; `make help` lists them. The scripts behind them are in tools/, report/ and
# slides/.

PYTHON ?= python3
PROFILE ?= full
FRESH ?=
NO_COMPILER ?=
# The notebook and requirements.txt name the same version (a test compares).
MEMTORCH = memtorch-cpu==1.1.6

VENV = .venv/bin/python
WITHOUT = $(filter-out 0 no,$(NO_COMPILER))
# Two processes; the tests of a file stay together, for they share what they have made.
PYTEST = $(VENV) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
INSTALL = -m tools.install --memtorch "$(MEMTORCH)" $(if $(WITHOUT),--no-compiler)

.DEFAULT_GOAL := help
.PHONY: help install run check test lint lab readme report slides demo html pdf reproduce versions bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'make run PROFILE=quick   a small run in build/quick/ that changes nothing else'
	@echo 'make run FRESH=1         compute everything again, reusing no checkpoint'
	@echo 'make run NO_COMPILER=1   do without a compiler, and without comparisons with MemTorch itself'
	@echo 'make PYTHON=python3.12   use this Python (at least 3.11) for a new .venv'

install: ## make .venv with everything that the notebook and the tests need
	@$(VENV) $(INSTALL) --check 2>/dev/null || \
		{ PYTHON="$(PYTHON)" NO_COMPILER="$(WITHOUT)" sh tools/preflight.sh && $(PYTHON) $(INSTALL); }

run: install ## execute the notebook from top to bottom; write figures/ and README's tables
	@$(VENV) -m tools.run_notebook --profile "$(PROFILE)" $(if $(filter-out 0 no,$(FRESH)),--fresh)
	@[ "$(PROFILE)" != full ] || $(VENV) -m tools.readme

check: lint ## lint and the fast tests, for every change
	@$(PYTEST) -m "not slow"

test: lint ## everything that CI checks
	@$(PYTEST)

lint: install ## ruff on the scripts, the tests and the notebook
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .

lab: install ## open the notebook in JupyterLab
	@$(VENV) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) coloredmnist.ipynb

readme: install ## write the measured numbers into README.md
	@$(VENV) -m tools.readme

report: install ## build the report and the forms in report/ from the results, in both languages
	@$(VENV) -m report.build

slides: install ## build the slides in slides/ from the results, in both languages
	@$(VENV) -m slides.build

demo: install ## build slides/demo.html, the page for the lecture, from a full run's networks
	@$(VENV) -m slides.demo.build
	@$(VENV) -m slides.demo.picture

html: install ## render the notebook as one page that needs no network, in build/
	@$(VENV) -m tools.page

pdf: install ## print the notebook without its code in build/, with LaTeX (pandoc and xelatex)
	@$(VENV) -m nbconvert --to pdf --no-input --output-dir build coloredmnist.ipynb

reproduce: install ## run the quick profile twice from nothing and compare every number
	@$(VENV) -m tools.reproduce

versions: ## the quick profile under every Python that is found, each with a .venv of its own
	@$(PYTHON) -m tools.versions

bench: install ## measure a fresh clone of the last commit, beside the budgets
	@$(VENV) -m tools.bench --python "$(PYTHON)"

# Where file systems ignore case, data/MNIST (torchvision's) is data/mnist (shipped): hence raw alone.
clean: ## remove what runs have made (.venv and the shipped data stay)
	rm -rf build data/ColoredMNIST data/MNIST/raw data/checkpoints data/results
	rmdir data/MNIST 2>/dev/null || true
	rm -rf .pytest_cache .ruff_cache .ipynb_checkpoints
	find tools tests report slides -name __pycache__ -type d -prune -exec rm -rf {} +
