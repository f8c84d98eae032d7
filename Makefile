# Everything a newcomer runs. Each target installs what it needs, and is quick and quiet the second time.
#   make quickstart   build a real image, twice
#   make test         lint, types, layers, tests (under 20 minutes on two cores)
#   make test-all     and the slow ones
#   make bench        whole-command timings beside buildah (and BuildKit with PEER=directory)
#   make conformance PEER=directory   the same definitions before us and before BuildKit (buildctl, buildkitd and docker-buildx in PEER)

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN_PACKAGES := busybox-static git
TEST_PACKAGES := $(RUN_PACKAGES) skopeo umoci runc crun buildah docker-registry strace e2fsprogs util-linux iproute2 gpg gpg-agent libseccomp2 mmdebstrap openssh-client xfsprogs qemu-user-static
PEER_PACKAGES := $(TEST_PACKAGES) docker.io
PEER_PROGRAMS := buildctl buildkitd docker-buildx

.PHONY: quickstart test test-all lint bench conformance clean

quickstart: $(STAMP)
	@.ci/apt-install $(RUN_PACKAGES)
	@examples/quickstart/run $(BIN)/pybuild

test: $(STAMP) lint
	@.ci/apt-install $(TEST_PACKAGES)
	@$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP) lint
	@.ci/apt-install $(TEST_PACKAGES)
	@$(BIN)/python -m pytest

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --cache-dir $(VENV)/import-linter > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; false; }

bench: $(STAMP)
	@.ci/apt-install $(TEST_PACKAGES)
	@$(BIN)/python -m tests.bench $(if $(PEER),--peer $(PEER))

conformance: $(STAMP)
	@for program in $(PEER_PROGRAMS); do test -n "$(PEER)" -a -x "$(PEER)/$$program" || \
	  { echo "conformance: set PEER to a directory that holds $(PEER_PROGRAMS): there is no $$program" >&2; exit 2; }; done
	@.ci/apt-install $(PEER_PACKAGES)
	@PEER=$(abspath $(PEER)) $(BIN)/python -m pytest tests/conformance

$(STAMP): pyproject.toml
	@.ci/venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python -m compileall -q buildengine cache frontends llb solver worker
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
