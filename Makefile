# chunkprefill: `make book` reads, `make test` proves. `make help` lists the rest.
PYTHON   ?= python3
VENV     := .venv
BOOK_ENV ?= .venv-book
RUN      := $(VENV)/bin/python
PIP      := -m pip --disable-pip-version-check
.DEFAULT_GOAL := help
# Whatever the surroundings say: files are UTF-8, a script finds its neighbours, pip installs into the environment.
export PYTHONUTF8 := 1
export PIP_USER := 0
unexport PYTHONSAFEPATH
.PHONY: mutants help book html setup test quick proof soak check lint types unit unit-shown nbval weights engines demo notebooks pages \
        pages-check stamp vendor colab-check links lock look pdf pageweight clean
# Two workers on two cores, at most four: each loads torch. Neighbours share fixtures and stay together; who is
# idle at the end takes half of what another has left. A notebook's cells are one kernel's.
WORKERS  := -n auto --maxprocesses 4
TESTS    := $(WORKERS) --dist worksteal
CELLS    := $(WORKERS) --dist loadfile
# Two jobs at once print one after the other, where make can do that.
SYNC     := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- read -------------------------------------------------------------------------------------------
book: html ## build the book in a light environment (no torch), serve it, print the address
	$(BOOK_ENV)/bin/python tools/serve.py _build/html

html: $(BOOK_ENV)/.ready ## build the book only, into _build/html; any warning is an error
	@$(BOOK_ENV)/bin/python tools/ledger.py --check # evidence against a claim is an error too
	@$(BOOK_ENV)/bin/python tools/live.py # what the pages run in the reader's browser
	$(BOOK_ENV)/bin/python $(BOOK_ENV)/bin/jupyter-book build . -W -n --keep-going
	@test -f _build/html/index.html || { echo "the book was not built: is jupyter-book older than 2?"; exit 1; }

# --- prove ------------------------------------------------------------------------------------------
test: $(VENV)/.ready weights ## everything: style, types, the book, the tests, every notebook's outputs
	@$(MAKE) --no-print-directory -j2 $(SYNC) lint types pages-check html BOOK_ENV=$(VENV)
	@$(MAKE) --no-print-directory -j2 $(SYNC) nbval unit-shown

# The tests show how far they are, while the notebooks beside them say everything at their end: a kernel that
# starts and a browser that draws leave a core idle.
unit-shown:
	+@MAKEFLAGS= $(MAKE) --no-print-directory $(MAKEOVERRIDES) unit

# Left to `make test`: what loads the real model, talks to servers, starts Pyodide or takes over three seconds a test.
NOT_QUICK := tests/house/test_pyodide.py tests/library/servers tests/library/test_demo.py tests/library/test_calibrate.py \
  tests/library/model/test_smollm2.py tests/library/model/test_variants.py tests/library/scheduling/test_parity.py \
  tests/library/simulation/test_sweep.py tests/library/simulation/test_capacity.py tests/library/simulation/test_cost_profiles.py

quick: $(VENV)/.ready ## every day, under two minutes: style, types, the tests that need no browser, weights, notebook
	@$(MAKE) --no-print-directory -j2 $(SYNC) lint types
	$(RUN) -m pytest $(TESTS) -q -m "not slow" tests/house tests/library $(addprefix --ignore=,$(NOT_QUICK))

proof: $(VENV)/.ready weights ## the same proofs on many more draws: secrets, students, cases of the clinic, Hypothesis
	PROOF=1 $(RUN) -m pytest $(TESTS) -q -m proof

soak: $(VENV)/.ready weights ## twenty rounds of what draws or races, and once what drives a browser, on a busy machine
	$(RUN) tools/soak.py

weights: $(VENV)/.ready # the real model's weights, fetched once; without them the tests that need them are skipped
	@$(RUN) -m chunkprefill fetch || echo "Going on without: tests and notebooks that need these weights are skipped."

lint: $(VENV)/.ready ## style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.ready ## types
	$(RUN) -m mypy

unit: $(VENV)/.ready weights ## the tests, the built pages among them
	$(RUN) -m pytest $(TESTS)

nbval: $(VENV)/.ready weights ## run every notebook and compare with its committed outputs
	$(RUN) -m pytest $(CELLS) --nbval --nbval-sanitize-with tests/nbval-sanitize.cfg notebooks

pages-check: $(VENV)/.ready ## generated pages and stamped cells are up to date
	$(RUN) tools/stubs.py --check
	$(RUN) tools/api.py --check
	$(RUN) tools/front.py --check
	$(RUN) tools/primer.py --check
	$(RUN) tools/instructors.py --check
	$(RUN) tools/ledger.py --check
	$(RUN) tools/sitting.py --check
	$(RUN) tools/readme.py --check
	$(RUN) tools/measurements.py --check
	$(RUN) tools/accuracy_digest.py --check
	$(RUN) tools/vllm_digest.py --check
	$(RUN) tools/parts_digest.py --check
	$(RUN) tools/your_server.py --check
	$(RUN) tools/colab.py stamp --check
	$(RUN) tools/notebooks.py check

# --- write ------------------------------------------------------------------------------------------
setup: $(VENV)/.ready ## the development environment, in .venv

engines: .venv-engines/.ready ## an environment with vLLM, for `python -m benchmarks engines`

demo: $(VENV)/.ready ## build one prompt's cache chunk by chunk, on real weights
	$(RUN) -m chunkprefill demo

notebooks: $(VENV)/.ready ## execute every notebook and normalise what it saves
	$(RUN) tools/notebooks.py execute

pages: $(VENV)/.ready ## write the generated pages again
	$(RUN) tools/stubs.py
	$(RUN) tools/api.py
	$(RUN) tools/front.py
	$(RUN) tools/primer.py
	$(RUN) tools/instructors.py
	$(RUN) tools/ledger.py
	$(RUN) tools/sitting.py
	$(RUN) tools/readme.py
	$(RUN) tools/measurements.py
	$(RUN) tools/accuracy_digest.py
	$(RUN) tools/vllm_digest.py
	$(RUN) tools/parts_digest.py
	$(RUN) tools/your_server.py

stamp: $(VENV)/.ready ## put the repository's address of _config.yml into each notebook
	$(RUN) tools/colab.py stamp

mutants: $(VENV)/.ready ## change each shown solution in every small way: is each caught?
	$(RUN) tools/mutants.py
	PROOF=most $(RUN) -m pytest $(TESTS) -q tests/course/exercises/test_clinic.py tests/grading/test_draws.py tests/grading/test_marking.py tests/grading/test_problem_sets.py

look: $(VENV)/.ready ## screenshots of every page, three widths, light and dark
	$(RUN) tools/look.py

colab-check: $(VENV)/.ready ## would it install and run on Colab?
	$(RUN) tools/colab.py check

pdf: html $(VENV)/.ready ## the whole book as one PDF with contents, in _build/book.pdf (needs Chromium)
	$(RUN) tools/pdf.py

pageweight: html $(VENV)/.ready ## what each page weighs on a phone: bytes, paint, blocking, taps
	$(RUN) tools/pageweight.py --out benchmarks/results/pageweight.json

links: $(VENV)/.ready ## ask every outside link whether it still answers (needs the internet)
	$(RUN) $(VENV)/bin/jupyter-book build . --builder linkcheck

vendor: $(VENV)/.ready ## fetch the vendored scripts again, at their pinned versions
	$(RUN) tools/vendor.py

lock: $(VENV)/.ready ## renew the pinned requirements
	$(RUN) tools/lock.py

clean: ## remove what was built (not the environments)
	rm -rf _build screenshots

# --- environments: made once, made again when their pins change ---------------------------------------
define new-env
@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("chunkprefill needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v)'
$(PYTHON) -m venv $(@D)
endef

.venv-book/.ready: requirements/book.txt
	$(new-env)
	$(@D)/bin/python $(PIP) install -r requirements/book.txt
	@touch $@

.venv-engines/.ready: requirements/engines.txt
	$(new-env)
	$(@D)/bin/python $(PIP) install --no-deps -r requirements/engines.txt
	@touch $@

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	$(new-env)
	$(@D)/bin/python $(PIP) install -r requirements/dev.txt
	$(@D)/bin/python $(PIP) install --no-deps -e .
	@touch $@
