# Every target sets up .venv. `make report DATA=coco:/path STUDY=full SEEDS=5` passes its variables on as
# `mlkd report --data coco:/path --study full --seeds 5`; an unknown variable is an error. The switch is NO_TRAIN=1.
PYTHON ?= python3
READY := .venv/.ready

# Without cached bytecode each process, such as a notebook's, compiles PyTorch again: 5 to 10 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup report test soak check lint types lab bench lock teacher figures
.DEFAULT_GOAL := report

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
	touch $(READY)

options := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
value = $(if $(filter NO_TRAIN=1,$(name)=$($(name))),,'$($(name))')
flags = $(foreach name,$(filter-out PYTHON,$(options)),--$(shell echo $(name) | tr 'A-Z_' 'a-z-') $(value))

report: setup
	.venv/bin/mlkd report $(flags)

# Lint, types, the doctests of the package and all tests.
test: check
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist worksteal --durations 10 tests mlkd

check: lint types

# The slow tests: kills at random moments, several processes, a cluster.
soak: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m soak --durations 0

lint: setup
	.venv/bin/ruff check mlkd tests notebooks benchmarks examples figures
	.venv/bin/ruff format --check mlkd tests notebooks benchmarks examples figures

types: setup
	.venv/bin/mypy

# Kernels start in this folder, as those of a report do: both use the runs in ./runs.
lab: setup
	.venv/bin/jupyter lab --notebook-dir notebooks --MappingKernelManager.root_dir=$(CURDIR) $(if $(filter 0,$(shell id -u)),--allow-root)

# `make bench SCALE=1` measures time and memory for growing data instead (five to fifteen minutes).
bench: setup
	.venv/bin/python -m benchmarks$(if $(SCALE),.scale)

# Retrains the teacher that ships with the package and evaluates it (about 10 minutes on 2 cores).
teacher: setup
	.venv/bin/mlkd train --role teacher --study full --runs runs/full --export mlkd/pretrained/scenes_teacher.safetensors
	.venv/bin/mlkd train --role teacher --study quick

# The README's figures and the scores of the default study (more than an hour on 2 cores).
figures: setup
	.venv/bin/mlkd report
	.venv/bin/python figures/make.py images reports/scenes-quick maps correlation_differences
	.venv/bin/mlkd report --study full --runs runs/full
	.venv/bin/python figures/make.py images reports/scenes-full scenes label_graph l2d_scores protocols
	.venv/bin/python figures/make.py scores runs/full

# requirements.lock, from pyproject.toml: exact versions with hashes, for every supported Python.
lock:
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --quiet -o requirements.lock
