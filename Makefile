# `make demo` and `make test` are all anyone types; both install into .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
LOWEST := .venv-lowest

.PHONY: help install demo docs test lint test-slow test-gpu gpu-report test-lowest endurance fuzz clean

help:
	@echo "make demo       train a small vocoder on data/demo (about 3 minutes on 2 cores)"
	@echo "make docs       pages about every public name, in build/docs"
	@echo "make test       lint, types and tests (about 7 minutes on 2 cores)"
	@echo "make test-slow  the tests that take minutes each;  make test-gpu  those that need CUDA"
	@echo "make gpu-report  proves and measures on a GPU, in at most 9 minutes, to gpu-report/ (DEVICE=cpu: reduced)"
	@echo "make fuzz       5,000 damaged recordings, tables, mels, checkpoints and configurations"
	@echo "make test-lowest  the tests on the lowest versions that pyproject.toml allows, in .venv-lowest"
	@echo "make endurance  an hour of kills and signals at every moment of small runs (docs/endurance.md)"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes, about 6 GB"
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --config-settings editable_mode=compat --editable '.[dev]'
	@$(RUN)/python -m pip install --quiet --constraint constraints.txt pesq \
		|| echo "PESQ is not installed, since it needs a C compiler: its column stays empty, its tests are skipped"
	touch $@

demo: install
	$(RUN)/univnet demo

docs: install
	$(RUN)/python docs/api.py build/docs
	@echo "Open build/docs/index.html"

lint: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest --numprocesses auto

test-slow: install
	$(RUN)/python -m pytest -m slow

test-gpu: install
	$(RUN)/python -m pytest -m gpu tests/gpu

# Without install: a machine with a GPU may have torch and Lightning and no way to a registry.
gpu-report:
	$(or $(wildcard $(RUN)/python),$(PYTHON)) scripts/gpu_report.py --device $(or $(DEVICE),cuda) --output $(or $(OUTPUT),gpu-report)

fuzz: install
	UNIVNET_MUTATIONS=5000 $(RUN)/python -m pytest tests/data/test_mutated_inputs.py tests/cli/test_mutated_inputs.py

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --config-settings editable_mode=compat --editable '.[dev]'
	touch $@

test-lowest: $(LOWEST)/installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses auto

endurance: install
	cd tests && OMP_NUM_THREADS=1 ../$(RUN)/python -m support.endurance --minutes $(or $(MINUTES),60)

clean:
	rm -rf $(VENV) $(LOWEST) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
