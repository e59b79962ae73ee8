# mien: `make demo` and `make test` set up everything they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; to compile all of them would take as long as to install them.
# It must be allowed to keep what it compiled, or each process of the tests compiles torch again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt
# Three worker processes for two cores, because some tests wait for a browser or a process. The tests of a file share
# its fixtures, so they stay in one process.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# FER-2013 for the tests that need it; they are skipped if it is absent.
export MIEN_DATA ?= $(abspath $(CURDIR)/../shared/data)

# Two calls of pip must not write at the same time, so only `test` does two things at once.
ifeq ($(MAKELEVEL),0)
.NOTPARALLEL:
endif

.PHONY: help demo test suite lint docs web web-if-npm npm bench fuzz test-core test-serve test-lab wheel release-check clean

help:
	@echo "make demo           read the example image, write demo/report.html"
	@echo "make test           lint, types and the whole suite"
	@echo "make lint           ruff and mypy alone"
	@echo "make docs           write the generated pages of docs/ again and build the site (site/index.html)"
	@echo "make web            build the page that runs in the browser (web/dist; needs npm)"
	@echo "make npm            build and pack the npm package (build/npm)"
	@echo "make bench          measure mien on this machine"
	@echo "make fuzz           search for inputs that break what reads them (SECONDS=60 for each target)"
	@echo "make release-check  the long checks as well, and the built wheel"

# A pip of today resolves this list in half of the time that the pip of Python 3.11 needs.
$(VENV)/pip: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip
	@touch $@

# The core alone: what `pip install mien` brings.
$(VENV)/core: $(VENV)/pip pyproject.toml
	$(PIP) -e .
	@touch $@

# The core, the lab and the tools of development.
$(VENV)/all: $(VENV)/pip pyproject.toml
	$(PIP) -e ".[lab,video,serve,ray,dev]"
	@touch $(VENV)/core $@

demo: $(VENV)/core
	@mkdir -p demo
	@$(BIN)/mien predict examples/astronaut.png --out demo/report.html --out demo
	@echo "The report: demo/report.html (open it in a browser); the annotated image: demo/astronaut.mien.png"

# npm loads beside pip, and the types are checked beside the tests: pip and mypy use one core each.
test:
	@$(MAKE) --no-print-directory -j2 $(VENV)/all web-if-npm
	@$(MAKE) --no-print-directory -j2 lint suite

# Compiled once, before several processes would each compile them at the same time; the tests as well.
$(VENV)/compiled: $(VENV)/all
	$(BIN)/python -c "import torch._dynamo, torch.onnx, matplotlib.pyplot, onnxscript, optuna, pandas, pytest; pytest.main(['--collect-only', '-qq'])" > $@.log
	@touch $@

suite: $(VENV)/compiled
	$(PYTEST)

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/docs: $(VENV)/all pyproject.toml constraints.txt
	$(PIP) -e ".[docs]"
	@touch $@

# Broken links and anchors fail: they are warnings, which --quiet would leave uncounted. A page must load nothing from
# other hosts.
docs: $(VENV)/docs
	$(BIN)/python tools/docs_pages.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@! grep -rlE '(src=|<link[^>]* href=)"?https?://' site --include='*.html'
	@echo "The site: site/index.html (its search needs a server: python -m http.server -d site)"

# The page with its runtime: pinned by web/package-lock.json, 14 MB of WebAssembly that git and the wheel leave out.
web: web/node_modules/.package-lock.json
	@node web/build.mjs

web/node_modules/.package-lock.json: web/package-lock.json
	@npm ci --prefix web --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# The package for the browser: the same page modules, runtime and models, and what web/npm adds.
npm: web/node_modules/.package-lock.json
	@node web/pack.mjs

# The tests of the page skip, saying why, where npm is not installed or its registry not reached.
web-if-npm:
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory web || echo "web/dist was not built"; \
	else echo "npm is not installed: web/dist is not built, the tests of the page in a browser skip"; fi

bench: $(VENV)/all
	$(BIN)/mien benchmark

# SECONDS for each of the targets of tools/fuzz.py; findings are left in fuzz/.
SECONDS ?= 60
fuzz: $(VENV)/all
	$(PIP) -e ".[fuzz]"
	$(BIN)/python tools/fuzz.py --seconds $(SECONDS)

# The tests of a part with that part alone, in an environment of its own: VERSIONS=newest, or lowest of what
# pyproject.toml allows. Only the pinned versions of the whole suite have no deprecation.
VERSIONS ?= newest
CORE_TESTS := tests/detect tests/report $(filter-out tests/test_bundled.py tests/test_docs.py tests/test_examples.py tests/test_house.py \
	tests/test_wheel.py tests/test_wrong_arguments.py,$(wildcard tests/test_*.py))
test-core: TESTS := $(CORE_TESTS)
test-serve: TESTS := $(CORE_TESTS) tests/serve tests/commands/test_predict.py tests/commands/test_serve.py
test-lab: TESTS := tests/lab $(filter-out tests/commands/test_serve.py,$(wildcard tests/commands/test_*.py))
test-lab: TOOLS := scikit-image tensorboardX mlflow-skinny
test-core test-serve test-lab: test-%:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet pip
	$(PYTHON) tools/lowest_versions.py $(filter-out core,$*) > .venv-$*/lowest.txt
	.venv-$*/bin/python -m pip install --quiet $(if $(filter lowest,$(VERSIONS)),-c .venv-$*/lowest.txt) -e ".$(if $(filter-out core,$*),[$*])" \
		pytest pytest-timeout pytest-xdist hypothesis pillow-heif onnx setuptools $(TOOLS)
	.venv-$*/bin/python -m pytest -n auto --dist loadfile -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning \
		-W ignore::FutureWarning $(TESTS)

wheel: $(VENV)/all
	$(BIN)/python -m build --outdir dist
	$(PIP) twine
	$(BIN)/python -m twine check --strict dist/*
	$(PYTEST) -m release tests/test_wheel.py

# A local S3 server, in an environment of its own: it needs older packages than the pinned ones.
.venv-s3:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check moto flask flask-cors

release-check: $(VENV)/all .venv-s3 lint
	$(PIP) -e ".[imagenet]" schemathesis
	$(PYTEST) -m "release or not release"

clean:
	rm -rf $(VENV) .venv-* demo fuzz build dist site web/dist web/node_modules src/mien/serve/page/runtime *.egg-info src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
