# Everything lives in .venv; pip takes packages from wherever this machine is set up to take them from.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Processes of tests: two for each core, as half of the tests wait for something most of the time; more than four help little.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 2 ] && echo 4 || echo $$((2 * n)))

.PHONY: help demo test lint bench clean

help:
	@echo "make demo    a running cloud with a first webhook, every step shown (DEMO_EXIT=1 ends after the steps)"
	@echo "make test    lint, types and every test"
	@echo "make lint    ruff, mypy, import rules"
	@echo "make bench   the measurements of docs/performance.md, written to bench/results.json (BENCH=scale: how cost grows)"

$(VENV)/.run: requirements/run.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Wirechamber into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements/run.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "installing what the tests need ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements/dev.txt
	@touch $@

demo: $(VENV)/.run
	@$(BIN)/wirechamber demo $(if $(DEMO_EXIT),--exit)

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests bench examples
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/mypy
	$(BIN)/lint-imports

tests/interop/node_modules/.installed: tests/interop/package.json $(VENV)/.dev
	@echo "installing particle-api-js, particle-cli, two clients of event streams and Microsoft's device SDK ..."
	@cd tests/interop && PATH="$(abspath $(BIN)):$$PATH" npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

# Microsoft's SDK does not go together with newer packages of ours: an environment of its own.
$(VENV)/azure/.installed: requirements/azure.txt $(VENV)/.dev
	@echo "installing Microsoft's SDK for IoT Hub ..."
	@$(BIN)/python -m venv $(VENV)/azure
	@$(VENV)/azure/bin/python -m pip install -q --disable-pip-version-check -r requirements/azure.txt
	@touch $@

$(VENV)/.vectors: tests/vectors/fetch.py $(VENV)/.dev
	@$(BIN)/python tests/vectors/fetch.py
	@touch $@

# Other people's stacks from the distribution, which tests talk to: program and package. What can't be installed is
# missed by its tests only, which say so and are skipped.
PEERS := openssl:openssl gnutls-cli:gnutls-bin coap-client-openssl:libcoap3-bin \
  nginx:nginx haproxy:haproxy caddy:caddy chromium-headless-shell:chromium-headless-shell
$(VENV)/.peers: Makefile $(VENV)/.dev
	@for peer in $(PEERS); do program=$${peer%%:*}; package=$${peer##*:}; \
	  command -v $$program >/dev/null && continue; \
	  echo "installing $$package ..."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get -qq install -y --no-install-recommends $$package \
	    || { apt-get -qq update && apt-get -qq install -y --no-install-recommends $$package; }; } >/dev/null 2>&1 \
	    || echo "$$package can't be installed: the tests that need it are skipped"; \
	done
	@touch $@

test: lint tests/interop/node_modules/.installed $(VENV)/azure/.installed $(VENV)/.vectors $(VENV)/.peers
	$(BIN)/pytest -q -n $(WORKERS)

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(BENCH)

clean:
	rm -rf $(VENV) tests/interop/node_modules .mypy_cache .ruff_cache .pytest_cache
