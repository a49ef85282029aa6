# make demo: the whole on real hosts. make test: all tests. make clean: nothing of it is left.
# As root, or with sudo for what needs it (Debian packages, the lab's hosts).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test unit units component integration kubernetes faults faults-workers growth lint audit docs versions bounds debians matrix fuzz generated mutants mutants-deciding bundle lab clean

BIN := .venv/bin
LAB := tests/lab/lab
INVOKE := $(BIN)/invoke
# Labs that the integration tests use at the same time; the first is that of `make demo`.
LANES := 4
INVENTORY := --inventory inventory/lab.yml
# A real release in place of the lab's double: make demo|test|integration ALLUXIO=… JDK=…
# (tests/integration/release.py). JDK alone is for machines for which the lab has none.
export ALXP_ALLUXIO := $(and $(ALLUXIO),$(abspath $(ALLUXIO)))
export ALXP_JDK := $(and $(JDK),$(abspath $(JDK)))
ifneq ($(ALLUXIO)$(JDK),)
INVENTORY := --inventory .lab/release.yml
endif

help: ## Show this
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## Bring the lab up, deploy etcd, start workers, check them
	@tests/lab/demo $(INVENTORY)

test: units component integration ## Run all tests, with their own set-up

unit: $(BIN)/.ready ## Run the unit tests that start no process and take no time
	$(BIN)/python -m tests.shares 2 tests/unit -m 'not process and not long'

units: unit ## Run all unit tests
	$(BIN)/pytest -n 2 -m 'process or long' tests/unit

component: $(BIN)/.ready .artifacts ## Run the tests against an etcd of their own on loopback
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder tests/component

integration: lab ## Run the integration tests on the lab's hosts
	$(BIN)/pytest -n $(LANES) --dist loadfile --no-loadscope-reorder tests/integration

faults: .faults ## Put faults into every operation on the lab (hours); docs/reliability.md is made of it
	$(BIN)/python -m tests.faults.run $(FAULTS)
	$(BIN)/python -m tests.faults.report

faults-workers: .faults ## Kill and cut off 20 workers at random; writes docs/reliability-workers.md
	$(LAB) up etcd0 etcd1 etcd2 worker0 worker1 worker2
	$(BIN)/python -m tests.faults.workers $(FAULTS)

growth: .faults ## Measure every operation with 1, 3, 5 and 7 members
	$(LAB) up etcd0 etcd1 etcd2 etcd3 etcd4 etcd5 etcd6 etcd7
	$(BIN)/python -m tests.faults.growth
	$(BIN)/python -m tests.faults.report

.PHONY: .faults
.faults: .deps
	@$(MAKE) --no-print-directory -j3 $(BIN)/.ready .box .artifacts
	@$(LAB) artifacts etcd 3.5.35
	@$(LAB) up etcd0 etcd1 etcd2 etcd3

# Not in `test`: building the API server takes minutes, and some GB of Go's caches.
kubernetes: $(BIN)/.ready .artifacts ## Install the chart's values through a real API server (needs Go)
	@$(LAB) artifacts kubernetes
	$(BIN)/pytest tests/kubernetes tests/component/test_helm.py

lint: $(BIN)/.ready ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r provision tasks.py

audit: $(BIN)/.ready ## Ask OSV for vulnerabilities of what the lock file holds
	$(BIN)/python tests/audit

docs: $(BIN)/.ready ## Build the documentation into .site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build # with -q it would not count warnings

bundle: $(BIN)/.ready ## Make dist/: one archive to install from without internet (BUNDLE='--arch aarch64')
	$(BIN)/python -m release.bundle $(BUNDLE)

versions: ## Try the wheel on Python 3.10 to 3.13, with the newest and the oldest dependencies
	tests/versions

debians: $(BIN)/.ready .artifacts ## Try the tool on hosts of Debian 11 and 13
	tests/debians

matrix: $(BIN)/.ready .artifacts ## All that takes too long for every change (hours); docs/matrix.md is made of it (ROWS=trixie)
	tests/matrix $(ROWS)

bounds: ## Try the oldest Python with the oldest dependencies, the newest one with the newest
	tests/versions --bounds

HOSTILE := hostile inventory_hostile membership observe protocol render text
fuzz: $(BIN)/.ready ## Try 1000 examples of every property of what comes in: inventories, etcd values, hosts' answers
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -n 2 -m hypothesis $(HOSTILE:%=tests/unit/test_%.py)

generated: lab ## Try 200 generated inventories: systemd starts etcd and a worker with each, on the lab's hosts
	ALXP_GENERATED=200 $(BIN)/pytest tests/component/test_generated.py tests/integration/test_generated.py

# The tool is in the extra `mutants`, not in the lock file. Its settings are in pyproject.toml.
mutants: $(BIN)/.ready ## Mutate plans, inventory and verdicts: which do the unit tests let live? (hours)
	$(BIN)/pip install --quiet --editable '.[mutants]'
	$(BIN)/mutmut run
	$(BIN)/mutmut results

# mutmut makes all mutants and notes which tests run which function; it runs those of one function.
mutants-deciding: $(BIN)/.ready ## Mutate what decides on ordering, gates and quorums only (an hour)
	$(BIN)/pip install --quiet --editable '.[mutants]'
	$(BIN)/mutmut run 'provision.etcd.cluster.gates.x_order__mutmut_*'
	$(BIN)/python -m tests.mutants types
	$(BIN)/python -m tests.mutants run
	$(BIN)/python -m tests.mutants run --timeouts --children 1
	$(BIN)/python -m tests.mutants survivors
	$(BIN)/python -m tests.mutants table

lab: .deps ## Install what is missing, build box and artifacts, start the hosts
	@# Virtualenv, box and artifacts at the same time: each waits for something else.
	@$(MAKE) --no-print-directory -j3 $(BIN)/.ready .box .artifacts
	@$(LAB) up

.PHONY: .deps .box .artifacts
.deps:
	@$(LAB) deps tests
.box: .deps
	@$(LAB) box
.artifacts: .deps
	@$(LAB) artifacts tests

# Only versions and hashes of the lock files; then the project itself, editable. What runs comes
# first, as operators have it: the demo needs no more.
$(BIN)/.ready: pyproject.toml requirements.lock operators.lock | .deps
	@$(MAKE) --no-print-directory $(BIN)/.operators
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	@touch $@
$(BIN)/.operators: pyproject.toml operators.lock
	python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r operators.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

clean: ## Remove the lab, its box and artifacts, the virtualenv and caches
	$(LAB) clean
	rm -rf .venv .site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
