# `make help` lists the targets. Everything runs in .venv, which `make setup` builds from the pinned requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(abspath $(BIN)):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
DATA ?=
WEIGHTS ?= imagenet
FORCE ?=
BENCH ?=
IMAGES ?=
IMAGE ?=
OUT ?=
FORMAT ?=
MODEL ?=
VERSION ?=
YES ?=
STAGE ?=
PORT ?=
BASE ?= main

.DEFAULT_GOAL := help
.PHONY: help setup repro plan curve cv ablation report predict serve gallery export promote sync ui server verify chaos gc test check bench init clean lock

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with the pinned packages (needs Python 3.11, 3.12 or 3.13)

# Bytecode is compiled here, once: without it every import of TensorFlow costs half a minute.
$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"Python 3.11 to 3.13 needed, received {sys.version}; say make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --compile --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	@touch $(STAMP)

repro: setup ## Run the pipeline: whatever params.yaml, code or data made stale
	$(BIN)/graft check
	$(BIN)/dvc repro

plan: setup ## Say what `make repro` will compute, reuse and keep, and how long that takes, before it starts
	$(BIN)/graft plan

curve: setup ## Measure accuracy against labelled images: name every row in params.yaml under curve, and run the pipeline
	$(BIN)/graft check
	$(BIN)/graft curve

cv: setup ## Cross-validate: run the pipeline once per fold (data.split: kfold) and pool the folds
	$(BIN)/graft check
	$(BIN)/graft cv

ablation: setup ## Set Flatten against global pooling for every base, everything else equal, in a second workspace
	$(BIN)/graft check
	$(BIN)/graft ablation

report: setup ## Print what changed against another revision, as Markdown for a pull request: make report [BASE=main]
	@$(BIN)/graft report --base "$(BASE)"

# Not quoted below, so that a shell's patterns work; quote a pattern yourself to let graft find the files: '"photos/**"'.
predict: setup ## Classify images with the champion: make predict IMAGES="photos one.jpg" [OUT=answers.csv]
	@test -n "$(IMAGES)" || { echo 'make predict IMAGES="photos one.jpg" [OUT=answers.csv]: name image files or folders'; exit 2; }
	@$(BIN)/graft predict $(if $(OUT),--out "$(OUT)") $(IMAGES)

serve: setup ## Answer HTTP requests with the registered champion, on this machine alone: make serve [PORT=5001]
	@$(BIN)/graft serve $(if $(PORT),--port "$(PORT)")

gallery: setup ## Show what filters do to an image: make gallery [IMAGE=path] [MODEL=the champion]
	@$(BIN)/graft gallery $(if $(MODEL),--model "$(MODEL)") $(if $(IMAGE),"$(IMAGE)")

export: setup ## Write a model for another runtime: make export FORMAT=savedmodel|onnx|tflite [MODEL=the champion]
	@test -n "$(FORMAT)" || { echo "make export FORMAT=savedmodel, onnx or tflite"; exit 2; }
	@$(BIN)/graft export "$(FORMAT)" $(if $(MODEL),--model "$(MODEL)")

promote: setup ## Make a registered version the champion by hand: make promote VERSION=2
	@test -n "$(VERSION)" || { echo "make promote VERSION=number: a version of the registered model"; exit 2; }
	@$(BIN)/graft promote "$(VERSION)"

sync: setup ## Tell the tracking server all that this project knows of its runs, for instance an empty server
	@$(BIN)/graft sync

ui: setup ## Open the MLflow UI on this machine
	@$(BIN)/graft ui $(if $(PORT),--port "$(PORT)")

server: setup ## Run MLflow for a team: PostgreSQL, artifacts, logins (docs/server.md)
	@$(BIN)/graft server $(if $(PORT),--port "$(PORT)")

verify: setup ## Run everything again in a second workspace and print the first difference: make verify [STAGE=svm@vgg16]
	@$(BIN)/graft verify $(if $(STAGE),--stage "$(STAGE)")

chaos: setup ## Kill a small pipeline at 50 random moments, rerun it each time, compare it with an undisturbed one
	$(BIN)/python tests/chaos.py --random 50 --seed 0

gc: setup ## Show what lies beside the outputs (store, unfinished work, DVC's cache), free it after asking: make gc [YES=1]
	@$(BIN)/graft gc $(if $(YES),--yes)

test: setup ## Run the tests, one process per core
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

check: setup ## Lint, check formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without BENCH: MobileNet in all three. Everything else is an option of the three scripts.
bench: setup ## Time Graft beside plain Keras, 20 minutes on two cores; others: make bench BENCH="--case resnet50 --repeats 3"
	$(BIN)/python benchmarks/speed.py $(BENCH)
	$(if $(BENCH),,$(BIN)/python benchmarks/grid.py --sample 4)
	$(if $(BENCH),,$(BIN)/python benchmarks/growth.py)

init: setup ## Write params.yaml for your images: make init DATA=path [WEIGHTS=imagenet] [FORCE=1]
	@test -n "$(DATA)" || { echo "make init DATA=path: name a folder with one folder of images per class, a table or an archive"; exit 2; }
	$(BIN)/graft init $(if $(FORCE),--force) --weights "$(WEIGHTS)" "$(DATA)"

clean: ## Delete what the pipeline made (not DVC's cache, not MLflow's runs)
	rm -rf data/prepared data/augmented data/features models .work
	rm -rf reports/runs reports/history reports/rows reports/data reports/figures reports/tables
	rm -rf reports/index.html reports/model_card.* reports/leaderboard.csv reports/leaderboard.md reports/cv.* reports/ablation.* reports/gallery.html

lock: setup ## Pin requirements.txt anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet --output-file requirements.txt
