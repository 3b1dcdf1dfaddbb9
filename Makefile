# `make demo` and `make test` set everything up themselves, in a virtual environment of this checkout.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test check format clean

demo: $(STAMP)            ## the 24-model grid on the embedded default, then tables, figures and a report
	$(RUN) -m orchestrator.run grid --yes
	$(RUN) -m results table grid
	$(RUN) -m results report

test: $(STAMP)            ## all tests
	$(RUN) -m pytest

check: $(STAMP)           ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(STAMP)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(STAMP): pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[sweep,test]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
