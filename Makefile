# make report   run the experiments on the embedded digits and print where to read them
# make test     the test suite; make test-all includes the slow tests
# make coverage the same, and the lines of cifar_utils that no test runs
# make lab      JupyterLab on the notebooks
# make publish  rebuild the site of the published runs, RESULTS.md and README's table
# make lint     the checks of CI before the tests
#
# Each makes the environment, .venv, if it is missing or out of date. PYTHON names another python3 (3.11.4 to 3.13).

PYTHON ?= python3
FITS := >=3.11.4,<3.14
READY := .venv/.ready
TOOL := .venv/bin

.PHONY: report test test-all coverage lab publish lint
.DEFAULT_GOAL := report

# Two at once: runs as small as these are faster with a core each.
report: $(READY)
	@$(TOOL)/cifar-reports series --profile quick --jobs 2

test: $(READY)
	@$(TOOL)/python -m pytest --numprocesses auto --dist loadfile

test-all: $(READY)
	@$(TOOL)/python -m pytest --numprocesses auto --dist loadfile -m ''

coverage: $(READY)
	@$(TOOL)/python -m pytest --numprocesses auto --dist loadfile --cov --cov-report=term-missing:skip-covered

lab: .venv/.lab
	@$(TOOL)/jupyter lab notebooks

publish: $(READY)
	@$(TOOL)/cifar-reports publish

lint: $(READY)
	@$(TOOL)/ruff check . && $(TOOL)/ruff format --check . && $(TOOL)/lint-imports

# The stamp is made last, so an interrupted environment is made again, with packages from the cache. If
# $(PYTHON) has another version, uv finds or fetches one that fits. Bytecode is compiled now: many containers set
# PYTHONDONTWRITEBYTECODE, and would compile TensorFlow's modules at each start (16 s instead of 6).
$(READY): pyproject.toml constraints.txt
	@echo "Making the environment in .venv (once, about a minute)"
	@rm -rf .venv .uv && $(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@.uv/bin/uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable if (3, 11, 4) <= sys.version_info < (3, 14) else "$(FITS)")')" .venv || \
		{ echo "Python $(FITS) is needed. Install one and name it: make PYTHON=python3.12" >&2; exit 1; }
	@VIRTUAL_ENV=.venv .uv/bin/uv pip install --compile-bytecode --constraint constraints.txt uv --editable '.[test]'
	@touch $@

.venv/.lab: $(READY)
	@VIRTUAL_ENV=.venv $(TOOL)/uv pip install --compile-bytecode --constraint constraints.txt --editable '.[test,lab]'
	@touch $@
