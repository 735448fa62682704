# The project's commands; `make help` lists them. The scripts behind them are in .ci/.

PYTHON ?= python3
PROFILE ?= full
FRESH ?=
# The notebook's first code cell and requirements.txt name the same version (a test compares).
MEMTORCH = memtorch-cpu==1.1.6

VENV = .venv/bin/python
INSTALL = .ci/install.py --memtorch "$(MEMTORCH)"

.DEFAULT_GOAL := help
.PHONY: help install run test lint lab readme report slides html reproduce bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'make run PROFILE=quick   a small run in build/quick/ that changes nothing else'
	@echo 'make run FRESH=1         compute everything again, reusing no checkpoint'
	@echo 'make PYTHON=python3.12   use this Python (at least 3.11) for a new .venv'

install: ## make .venv with everything that the notebook and the tests need
	@$(VENV) $(INSTALL) --check 2>/dev/null || \
		{ PYTHON="$(PYTHON)" sh .ci/preflight.sh && $(PYTHON) $(INSTALL); }

run: install ## execute the notebook from top to bottom; write figures/ and README's tables
	@$(VENV) .ci/run_notebook.py --profile "$(PROFILE)" $(if $(filter-out 0 no,$(FRESH)),--fresh)
	@[ "$(PROFILE)" != full ] || $(VENV) .ci/readme.py

test: lint ## everything that CI checks
	@$(VENV) -m pytest

lint: install ## ruff on the scripts, the tests and the notebook
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .

lab: install ## open the notebook in JupyterLab
	@$(VENV) -m jupyterlab coloredmnist.ipynb

readme: install ## write the measured numbers into README.md
	@$(VENV) .ci/readme.py

report: install ## build the report and the forms in report/ from the results, in both languages
	@$(VENV) .ci/report.py

slides: install ## build the slides in slides/ from the results, in both languages
	@$(VENV) .ci/slides.py

html: install ## render the notebook as one page that needs no network, in build/
	@$(VENV) .ci/page.py

reproduce: install ## run the quick profile twice from nothing and compare every number
	@$(VENV) .ci/reproduce.py

bench: ## time install and quick run in a fresh clone of the last commit
	@$(PYTHON) .ci/bench.py

clean: ## remove what runs have built (.venv stays)
	rm -rf build data/ColoredMNIST data/MNIST data/checkpoints data/results
	rm -rf .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints
	find .ci tests -name __pycache__ -type d -prune -exec rm -rf {} +
