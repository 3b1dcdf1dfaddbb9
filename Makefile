# `make demo` and `make test` set everything up themselves, in a virtual environment of this checkout.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --constraint constraints.txt

.PHONY: help demo test test-cluster test-faults test-slow check format clean

help:                       ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

demo: $(VENV)/.sweep        ## the 24-model grid on the embedded default, then its table, figures and report
	$(RUN) -m orchestrator.run grid --yes
	$(RUN) -m results table grid
	@echo "The report, to open in a browser:"
	@$(RUN) -m results report

test: $(VENV)/.test         ## all tests
	$(RUN) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-faults: $(VENV)/.test  ## kill sweeps at hundreds of moments and compare what they leave
	$(RUN) -m pytest tests/faults -m faults

test-slow: $(VENV)/.test    ## every case of which `make test` takes a few
	$(RUN) -m pytest -m slow --numprocesses 2

test-cluster: $(VENV)/.cluster ## a real cluster of several hosts on this machine: nodes, driver and head die (root, Linux)
	$(RUN) -m pytest tests/cluster -m cluster

check: $(VENV)/.test        ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.test       ## rewrite in the project's style
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# torch first: the CPU build where one lies at hand, never a newer one as another package's dependency
$(VENV)/.sweep: pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[sweep]'
	touch $@

$(VENV)/.test: $(VENV)/.sweep
	$(PIP) --editable '.[sweep,test]'
	touch $@

$(VENV)/.cluster: $(VENV)/.test
	$(PIP) --editable '.[cluster,test]'
	touch $@

clean:                      ## remove everything that the above made, but no results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
