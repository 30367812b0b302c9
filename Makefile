export OMP_NUM_THREADS ?= 1

.PHONY: check test test-slow demo

check:
	ruff check . && ruff format --check . && mypy

test:
	python -m pytest -q -n 2

test-slow:
	python -m pytest -q -m "slow and not gpu"

demo:
	python -m ci.train_demo gdpi
