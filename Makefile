# `make reproduce` and `make test` need nothing but Python 3.11+ and make; both set up .venv first.
PYTHON ?= python3
RUN ?= runs/cpu
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# Idle OpenMP threads must not spin: several torch processes may share few cores.
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT := 0

.PHONY: help setup reproduce test notebooks book lab clean

help:
	@echo "make reproduce   run the whole book on the embedded benchmark into $(RUN)"
	@echo "make test        ruff, unit tests, notebook pairs, notebooks (nbval)"
	@echo "make notebooks   write each .ipynb from its .py, run the book, store the outputs, check the pairs"
	@echo "make book        build the HTML site from the executed notebooks"
	@echo "make lab         open JupyterLab in notebooks/"
	@echo "make clean       remove built files and $(VENV); runs/ is kept"

setup: $(INSTALLED)

# Re-run whenever pyproject.toml changes; a failed installation leaves no stamp and is tried again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=python3.12")'
	@echo "Setting up $(VENV): about 6 GB with torch, a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --progress-bar off --quiet --editable '.[test,book]'
	@touch $@

reproduce: setup
	$(PY) -m fairdf_utils reproduce --params cpu --run $(RUN)

test: setup
	$(PY) -m ruff check
	$(PY) -m ruff format --check --quiet
	$(PY) -m pytest -n 2 --dist loadfile
	$(PY) -m fairdf_utils notebooks --check
	$(PY) -m pytest --nbval-lax --no-header -p no:cacheprovider notebooks/*.ipynb

notebooks: setup
	$(PY) -m fairdf_utils notebooks --run runs/cpu

book: setup
	$(PY) -m sphinx -W -b html notebooks/book runs/site
	@echo "The site is at runs/site/index.html"

lab: setup
	cd notebooks && ../$(PY) -m jupyterlab

clean:
	rm -rf $(VENV) runs/site notebooks/book/chapters .pytest_cache .ruff_cache *.egg-info
	find fairdf_utils notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
