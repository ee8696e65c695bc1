# Tasks of this repository. `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test kills test-guest test-all soak lint bench fuzz evaluate build clean

CARGO ?= cargo

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing and, without systemd, start the services that libvirt needs (root)
	@packaging/setup-development

demo: setup ## show the main job on a real domain: grow under load, shrink after it; ARGS=--keep leaves it running
	@tests/guest/build >/dev/null
	$(CARGO) build --bins --example demo
	@$(CARGO) run --quiet --example demo -- $(ARGS)

test: setup ## unit, property and live tests (real libvirt and QEMU)
	@tests/guest/build >/dev/null
	@CARGO="$(CARGO)" tests/run

kills: setup ## kill the guest's agent, and cut its power, at every point of each of its sequences; `make test` has a sample of some of them
	@tests/guest/build >/dev/null
	VIRT_PERSONA_ALL_POINTS=1 $(CARGO) test --package virt-persona-agent a_kill_at_any_point
	VIRT_PERSONA_ALL_POINTS=1 $(CARGO) test --workspace --test agent_qemu a_power_cut

test-guest: setup ## the cases that need systemd, cgroup v2 and network devices, in a Debian machine of their own; the first time builds it
	@tests/debian/run $(CASES)

test-all: lint test kills test-guest ## everything: what each change must pass (lint, test), kills at every point, and the Debian machine

soak: ## a simulated day of a thousand domains with faults, long; `make test` has two hours of a hundred
	@ulimit -n 8192 2>/dev/null; SOAK=day $(CARGO) test --profile soak --test soak -- --nocapture

lint: ## format, clippy, documentation, shell scripts, XML and the house's rules; changes nothing
	@packaging/lint

bench: setup ## measure rules, the tick, the planner, the agent's round trip, sizes and memory, as ratios of one run
	@tests/guest/build >/dev/null
	$(CARGO) bench --package persona --bench rules
	$(CARGO) bench --package virt-persona --bench planner --bench tick --bench scale --bench live

fuzz: setup ## feed the fuzz targets, SECONDS (30) each, beginning with the corpus of fuzz/corpus
	@packaging/fuzz $(or $(SECONDS),30)

evaluate: ## replay recorded CPU utilisation (DATA/planetlab/*.csv, DATA/nab) through the planner; DATA=path is needed
	@if [ -z "$(DATA)" ]; then echo "evaluate: give the directory that holds planetlab/*.csv: make evaluate DATA=path" >&2; exit 1; fi
	@$(CARGO) run --quiet --release --example evaluate -- "$(DATA)"

build: ## build the daemon, the command line and the static programs of the guest
	$(CARGO) build --release --workspace --exclude virt-persona-agent --exclude virt-persona-gate --exclude virt-persona-switch --exclude guest-load
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --profile guest --target x86_64-unknown-linux-gnu -p virt-persona-agent -p virt-persona-gate
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --profile guest --target x86_64-unknown-linux-gnu -p virt-persona-switch

clean: ## remove what was built, also this checkout's test guest
	$(CARGO) clean
	@rm -rf -- "$$(tests/guest/build --print-output)"
