# Commands for development; CONTRIBUTING.md explains them. They run in the active virtual environment.

.PHONY: fix check test slow dist cov wheel min bench docs

export OMP_NUM_THREADS ?= 1  # two torch threads on a busy two-core machine can collapse
PYTHON ?= python3

fix:
	ruff check --fix
	ruff format

check:
	ruff check
	ruff format --check
	mypy
	cd benchmarks && mypy *.py
	pytest tests/test_imports.py

test:
	pytest

slow:
	pytest -m slow

dist:
	pytest tests/distributed

cov:
	pytest --cov --cov-report=term:skip-covered

wheel:
	bash .ci/wheel

# torch 2.8 from PyPI is a CUDA build of several GB.
min:
	rm -rf .venv-min
	$(PYTHON) -m venv .venv-min
	.venv-min/bin/pip install -q -c constraints-min.txt -e '.[dev]'
	.venv-min/bin/pytest

bench:
	python benchmarks/train_step.py --threads 1 --names mbf
	python benchmarks/pools.py
	python benchmarks/protocols.py --parts folds
	python benchmarks/synthetic.py
	python benchmarks/tables.py

docs:
	pip install -q -c constraints.txt -e '.[docs]'
	mkdocs build --strict --site-dir site
