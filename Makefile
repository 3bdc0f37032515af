# chunkprefill: `make book` reads, `make test` proves. `make help` lists the rest.
PYTHON   ?= python3
VENV     := .venv
BOOK_ENV ?= .venv-book
RUN      := $(VENV)/bin/python
PIP      := -m pip --disable-pip-version-check
.DEFAULT_GOAL := help
.PHONY: help book html setup test check lint types unit nbval demo notebooks pages pages-check stamp \
        vendor colab-check links lock look clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- read -------------------------------------------------------------------------------------------
book: html ## build the book in a light environment (no torch), serve it, print the address
	$(BOOK_ENV)/bin/python tools/serve.py _build/html

html: $(BOOK_ENV)/.ready ## build the book only, into _build/html; any warning is an error
	@$(BOOK_ENV)/bin/python tools/ledger.py --check # evidence against a claim is an error too
	$(BOOK_ENV)/bin/jupyter-book build . -W -n --keep-going
	@test -f _build/html/index.html || { echo "the book was not built: is jupyter-book older than 2?"; exit 1; }

# --- prove ------------------------------------------------------------------------------------------
test: $(VENV)/.ready ## everything: style, types, the book, the tests, every notebook's outputs
	@$(MAKE) --no-print-directory lint types pages-check
	@$(MAKE) --no-print-directory html BOOK_ENV=$(VENV)
	@$(MAKE) --no-print-directory nbval unit

lint: $(VENV)/.ready ## style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.ready ## types
	$(RUN) -m mypy

unit: $(VENV)/.ready ## the tests, the built pages among them
	$(RUN) -m pytest

nbval: $(VENV)/.ready ## run every notebook and compare with its committed outputs
	$(RUN) -m pytest --nbval --nbval-sanitize-with tests/nbval-sanitize.cfg notebooks

pages-check: $(VENV)/.ready ## generated pages and stamped cells are up to date
	$(RUN) tools/api.py --check
	$(RUN) tools/front.py --check
	$(RUN) tools/primer.py --check
	$(RUN) tools/instructors.py --check
	$(RUN) tools/ledger.py --check
	$(RUN) tools/readme.py --check
	$(RUN) tools/measurements.py --check
	$(RUN) tools/colab.py stamp --check
	$(RUN) tools/notebooks.py check

# --- write ------------------------------------------------------------------------------------------
setup: $(VENV)/.ready ## the development environment, in .venv

demo: $(VENV)/.ready ## build one prompt's cache chunk by chunk, on real weights
	$(RUN) -m chunkprefill demo

notebooks: $(VENV)/.ready ## execute every notebook and normalise what it saves
	$(RUN) tools/notebooks.py execute

pages: $(VENV)/.ready ## write the generated pages again
	$(RUN) tools/api.py
	$(RUN) tools/front.py
	$(RUN) tools/primer.py
	$(RUN) tools/instructors.py
	$(RUN) tools/ledger.py
	$(RUN) tools/readme.py
	$(RUN) tools/measurements.py

stamp: $(VENV)/.ready ## put the repository's address of _config.yml into each notebook
	$(RUN) tools/colab.py stamp

look: $(VENV)/.ready ## screenshots of every page, three widths, light and dark
	$(RUN) tools/look.py

colab-check: $(VENV)/.ready ## would it install and run on Colab?
	$(RUN) tools/colab.py check

links: $(VENV)/.ready ## ask every outside link whether it still answers (needs the internet)
	$(VENV)/bin/jupyter-book build . --builder linkcheck

vendor: $(VENV)/.ready ## fetch the vendored scripts again, at their pinned versions
	$(RUN) tools/vendor.py

lock: $(VENV)/.ready ## renew the pinned requirements
	$(RUN) tools/lock.py

clean: ## remove what was built (not the environments)
	rm -rf _build screenshots

# --- environments: made once, made again when their pins change ---------------------------------------
define new-env
@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("chunkprefill needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v)'
$(PYTHON) -m venv $(@D)
endef

.venv-book/.ready: requirements/book.txt
	$(new-env)
	$(@D)/bin/python $(PIP) install -r requirements/book.txt
	@touch $@

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	$(new-env)
	$(@D)/bin/python $(PIP) install -r requirements/dev.txt
	$(@D)/bin/python $(PIP) install --no-deps -e .
	@touch $@
