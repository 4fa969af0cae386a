# Needs python3 (3.11 to 3.13), make and git; everything else is installed into .venv.
.DEFAULT_GOAL := help
.PHONY: help demo test up down status logs lint format schema pipeline report check benchmark lock clean environments
.DELETE_ON_ERROR:

# Without bytecode every start recompiles its imports.
unexport PYTHONDONTWRITEBYTECODE
export DO_NOT_TRACK = true
export MLFLOW_DISABLE_TELEMETRY = true
# A virtual environment that happens to be active is not the one to install into.
unexport VIRTUAL_ENV

CONSTRAINTS = config/constraints.txt
INPUTS = pyproject.toml $(CONSTRAINTS)
# Constraints carry hashes, and uv refuses what does not match them, build tools included.
INSTALL = install --quiet --constraints $(CONSTRAINTS) --build-constraints $(CONSTRAINTS)
UV = $$(command -v uv || echo .venv/bin/uv)
# A third of all modules is what the stack imports; compiling the rest would take twice as long.
NEVER_IMPORTED = tests?|testing|plotly/validators|plotly/graph_objs/[^/]+|faker|databricks|statsmodels|pip|mypyc?|playwright|setuptools|fontTools
COMPILE = -m compileall -qq -j 0 -x 'site-packages/(.*/)?($(NEVER_IMPORTED))/'
RUN = .venv/.installed
DEV = .venv/.installed-dev
CORE = .venv-core/.installed

help:
	@echo "Airworthy: Apache Airflow for continuous training."
	@echo
	@echo "  make demo              replay a year of real flights through the whole loop"
	@echo "  make up                start PostgreSQL, MLflow, Airflow and serving; print where they are"
	@echo "  make down              take everything down; the state in .airworthy is kept"
	@echo "  make status            show every component: state, process, uptime, memory, address"
	@echo "  make logs              show the logs' ends  (COMPONENT=scheduler for one of them, FOLLOW=1 to go on)"
	@echo "  make pipeline NAME=x   write a commented starter pipeline that runs as it is"
	@echo "  make report NAME=x     write a pipeline's history as a page: training runs, verdicts, score by month"
	@echo "  make check             read the pipeline files and list every problem"
	@echo "  make schema            write the JSON Schema that editors check pipeline files with"
	@echo "  make test              run all tests, the machine-learning ones without Airflow first"
	@echo "  make benchmark         measure speed, each figure against its alternative in the same run"
	@echo "  make lint              ruff, mypy and import-linter"
	@echo "  make format            let ruff put the code in order"
	@echo "  make lock              pin every dependency anew in $(CONSTRAINTS)"
	@echo "  make clean             take everything down; delete state, environments and caches"
	@echo
	@echo "Ports: AIRWORTHY_AIRFLOW_PORT (8080), AIRWORTHY_MLFLOW_PORT (5000), AIRWORTHY_SERVING_PORT (8081),"
	@echo "       AIRWORTHY_POSTGRES_PORT (5433)"

demo: $(RUN)
	.venv/bin/airworthy demo

up: $(RUN)
	.venv/bin/airworthy up

# Looking and stopping must work at once, so these three install nothing.
down:
	@test ! -x .venv/bin/airworthy || .venv/bin/airworthy down

status:
	@test -x .venv/bin/airworthy || { echo "Nothing is installed yet: make up"; exit 1; }
	@.venv/bin/airworthy status

logs:
	@test -x .venv/bin/airworthy || { echo "Nothing is installed yet: make up"; exit 1; }
	@.venv/bin/airworthy logs $(COMPONENT) $(if $(FOLLOW),--follow)

pipeline: $(RUN)
	@test -n "$(NAME)" || { echo "Say which: make pipeline NAME=churn" >&2; exit 2; }
	@.venv/bin/airworthy new "$(NAME)"

report: $(RUN)
	@test -n "$(NAME)" || { echo "Say which: make report NAME=flight_delays" >&2; exit 2; }
	@.venv/bin/airworthy report "$(NAME)"

check: $(RUN)
	@.venv/bin/airworthy check

schema: $(RUN)
	@.venv/bin/airworthy schema

# Both that the tests need: everything, and the machine-learning part without Airflow.
environments: $(DEV) $(CORE)

test: environments
	.venv-core/bin/python -m pytest tests/include -q -n auto --maxprocesses 4 --dist loadfile
	.venv/bin/python -m pytest tests/include/test_spark.py tests/dags tests/integration tests/faults

benchmark: $(DEV)
	.venv/bin/python -m pytest tests/benchmarks -q

lint: $(DEV)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	PYTHONPATH=plugins .venv/bin/lint-imports

format: $(DEV)
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

lock: .venv/bin/python
	$(UV) pip compile --quiet --universal --generate-hashes --all-extras --group build --no-header --no-annotate \
		--python-version 3.11 pyproject.toml -o $(CONSTRAINTS)

clean: down
	rm -rf .venv .venv-core .airworthy .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): .venv/bin/python $(INPUTS)
	@echo "Installing into .venv; with a warm package cache this takes about 20 s"
	@$(UV) pip $(INSTALL) --python .venv -e '.[airflow,embedded]'
	@.venv/bin/python $(COMPILE) .venv/lib || true # a module for another Python version is no reason to stop
	@touch $@

$(DEV): $(RUN)
	@echo "Adding the development tools to .venv"
	@$(UV) pip $(INSTALL) --python .venv -e '.[airflow,embedded,redis,spark,dev]'
	@touch $@

$(CORE): .venv/bin/python $(INPUTS)
	@echo "Installing into .venv-core: the machine-learning part, without Airflow"
	@$(UV) venv --quiet --clear --python .venv/bin/python .venv-core
	@$(UV) pip $(INSTALL) --python .venv-core -e '.[embedded,redis]' \
		httpx hypothesis 'moto[s3,server]' playwright pytest pytest-timeout pytest-xdist
	@touch $@

.venv/bin/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
			found=$$python; break; fi; done; \
	if [ -z "$$found" ]; then \
		echo "Python 3.11, 3.12 or 3.13 is needed; python3 is $$(python3 --version 2>&1). Set PYTHON=/path/to/python" >&2; \
		exit 1; fi; \
	if command -v uv >/dev/null; then \
		uv venv --quiet --clear --python "$$(command -v "$$found")" .venv; \
	else \
		echo "Bringing uv into .venv"; \
		"$$found" -m venv --clear .venv || { echo "On Debian: apt install python3-venv" >&2; exit 1; }; \
		sed -n '/^uv==/,/[^\\]$$/p' $(CONSTRAINTS) | \
			.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement /dev/stdin; \
	fi
