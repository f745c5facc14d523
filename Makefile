PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALLED := $(VENV)/.msclr-installed
CPP_FILES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
CPP_TESTS := $(wildcard tests/kernels/*/*.cpp tests/kernels/*/*.h tests/fuzz/*.cpp)

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install test sanitize demo lint format wheel clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##  */\1\t/p' $(MAKEFILE_LIST) | expand -t 10

install: $(INSTALLED)  ## make .venv, with the package installed in place (PYTHON=python3.12 picks the Python)

test: $(INSTALLED)  ## run the tests
	@$(VENV)/bin/python -m pytest -n 2

SANITIZED := build/sanitized
SANITIZERS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined

sanitize: $(INSTALLED)  ## run the tests of all C++ under AddressSanitizer and UBSan
	rm -rf $(SANITIZED)
	CFLAGS="$(SANITIZERS)" $(VENV)/bin/python setup.py --quiet build --build-lib $(SANITIZED)
	cp -r tests csrc benchmarks pyproject.toml $(SANITIZED)
	cd $(SANITIZED) && ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=. \
	LD_PRELOAD="$$(for l in asan ubsan stdc++; do g++ -print-file-name=lib$$l.so; done | tr '\n' ' ')" \
	$(CURDIR)/$(VENV)/bin/python -m pytest -q -p no:cacheprovider tests/kernels tests/data/test_skeleton_native.py \
	-m "not unsanitized"

demo: $(INSTALLED)  ## prepare, pretrain and evaluate on generated data, ends with a report page
	@$(VENV)/bin/msclr demo

lint: $(INSTALLED)  ## check style and format of Python and C++
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP_FILES) $(CPP_TESTS)

format: $(INSTALLED)  ## put Python and C++ into format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CPP_FILES) $(CPP_TESTS)

wheel: $(INSTALLED)  ## build a wheel into dist/
	rm -rf build/lib*  # or modules deleted since would be in it
	$(VENV)/bin/pip wheel --no-deps --no-build-isolation -w dist .

clean:  ## remove what was built, .venv excepted
	rm -rf build dist *.egg-info kernels/*.so msclr/data/*.so .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -f $(INSTALLED)
	find msclr kernels benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The build needs torch beforehand (see pyproject.toml), hence two steps. Edits of Python files need
# no new installation.
$(INSTALLED): constraints.txt setup.py pyproject.toml $(CPP_FILES) | $(VENV)/bin/python
	$(PIP) setuptools ninja pybind11 torch numpy
	$(PIP) --no-build-isolation --editable ".[test,dev]"
	@test -f kernels/_C.so || echo "msclr runs without its compiled operators, on PyTorch's own;" \
	"to see why: .venv/bin/pip install -v --no-build-isolation --no-deps --editable ." >&2
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "msclr needs Python 3.11 or later, and $(PYTHON) is none; name another, as in:" \
	"make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
