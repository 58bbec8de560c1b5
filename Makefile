# What one does with this project. `make` alone says it.
ENV ?= sandbox
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
SANDBOX := $(BIN)/python -m sandbox

.DEFAULT_GOAL := help
.PHONY: help setup deploy plan smoke backup monitor load perf dashboard secrets \
	test test-unit test-integration test-slow test-faults lint format \
	golden lock audit-packages sandbox-up sandbox-down sandbox-ssh sandbox-logs sandbox-reboot sandbox-status \
	bench-deploy bench-release bench-memory \
	bench-tuning bench-versus bench-logins bench-scale bench-overhead bench-monitor bench-generator clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  ENV=production|staging|sandbox chooses the environment (default: sandbox)"

setup:
	@scripts/bootstrap

deploy: setup ## set everything up and deploy: a VPS in a box, or ENV=production
	@KIND="$(KIND)" scripts/deploy $(ENV)

plan: setup ## the memory budget, and what a deploy would change
	@$(BIN)/koprogo plan $(ENV)

smoke: setup ## the smoke tests: from outside, and on the host
	@$(BIN)/koprogo smoke $(ENV)

monitor: setup ## the host, live: containers, machine, Postgres, proxy
	@$(BIN)/koprogo monitor --env $(ENV)

load: setup ## the realistic load, judged by the objectives
	@$(BIN)/koprogo load realistic --env $(ENV) --gate

perf: setup ## seed, monitor, load, gate, report: does it meet its objectives?
	@$(BIN)/koprogo perf --env $(ENV)

dashboard: setup ## the same by looking and clicking, on 127.0.0.1
	@$(BIN)/koprogo dashboard --env $(ENV) --open

backup: setup ## a backup now: database, uploads and manifest, read back whole
	@$(BIN)/pyinfra inventories/$(ENV).py deploys/backup.py -y

secrets: setup ## write .env.<environment> with generated secrets; never overwrites
	@$(BIN)/koprogo secrets init $(ENV)

test: setup ## the whole test suite: lint, unit, and against the sandbox
	@scripts/test

test-unit: setup ## unit tests only: seconds
	@$(PYTEST) tests/unit

test-integration: setup ## tests that deploy to the sandbox
	@$(PYTEST) tests/integration -m "not slow and not faults"

test-slow: setup ## the integration tests that take long
	@$(PYTEST) tests/integration -m slow

test-faults: setup ## ten releases and three rollbacks, every kill and fault: half an hour and more
	@$(PYTEST) tests/integration -m faults -s

lint: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## let ruff format
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format .

golden: setup ## write tests/golden anew, to review a change of rendered output
	@$(PYTEST) -q tests/unit --update-golden

lock: setup ## resolve what comes from PyPI into files with hashes; ARGS=--upgrade: newest
	@scripts/lock $(ARGS)

audit-packages: setup ## known vulnerabilities of the locked packages (pip-audit)
	@scripts/audit-packages

sandbox-up: setup ## the VPS, its registry and images: KIND=box (a container) or KIND=vm
	@$(SANDBOX) up $(if $(KIND),--kind $(KIND))

sandbox-down: setup ## remove the box and its registry
	@$(SANDBOX) down

sandbox-ssh: setup ## a shell in the box
	@$(SANDBOX) ssh

sandbox-logs: setup ## the box's journal
	@$(SANDBOX) logs

sandbox-reboot: setup ## reboot the box
	@$(SANDBOX) reboot

sandbox-status: setup ## what of the sandbox is up
	@$(SANDBOX) status

bench-deploy: setup ## time of a deploy, cold and unchanged, against plain scripts
	@$(BIN)/python -m bench.deploy

bench-release: setup ## a new tag under load, ours and others: make bench-release ROLLOUT=path/docker-rollout
	@$(BIN)/python -m bench.release $(if $(ROLLOUT),--docker-rollout "$(ROLLOUT)")

bench-memory: setup ## memory of each container, idle and loaded, warm and cold
	@$(BIN)/python -m bench.memory

bench-tuning: setup ## CPU quotas or weights, and whose Postgres settings, under load
	@$(BIN)/python -m bench.tuning

bench-versus: setup ## what a setting changes: make bench-versus A=now B=less=postgres_memory=384MB
	@$(BIN)/python -m bench.versus $(A) $(B)

bench-logins: setup ## whether a login stalls everybody, by the number of workers
	@$(BIN)/python -m bench.logins

bench-scale: setup ## the lists at 1, 10 and 100 times the data, with and without indexes
	@$(BIN)/python -m bench.scale

bench-overhead: setup ## CPU for each request of monitor, access log, metrics, middlewares
	@$(BIN)/python -m bench.overhead

bench-monitor: setup ## CPU of the monitor, the box idle
	@$(BIN)/python -m bench.monitor

bench-generator: setup ## whether the load generator is the limit
	@$(BIN)/python -m bench.generator

clean: ## remove what can be made again; the sandbox has its own: make sandbox-down
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
