# Every target installs what it needs into VENV, which may be an existing virtual environment.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
export CAPTION_BIND ?= 127.0.0.1:8000
# glibc settings: return the memory of large photos to the system, and limit the memory retained per thread.
run: export MALLOC_MMAP_THRESHOLD_ ?= 8000000
run: export MALLOC_ARENA_MAX ?= 2

.DELETE_ON_ERROR:
.PHONY: run test check format caption reproduce install install-dev

run: install  ## serve the web page and the API on http://127.0.0.1:8000
	$(BIN)/gunicorn -c service/gunicorn_config.py "service.app:create_app()"

test: install-dev  ## run the tests, except the slow ones (make test ARGS="-m slow")
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(or $(ARGS),-m "not slow")

check: install-dev  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

caption: install  ## make caption INPUT="photos/" OUTPUT=captions
	$(BIN)/python -m service.batch $(INPUT) --output $(or $(OUTPUT),captions) --overlays

# Train a captioner like the shipped one; results are in checkpoints/default/README.md. DATA contains flickr8k/ and
# more_photos/, each with captions.json and images/; WEIGHTS is the file of pretrained encoder weights. After an
# interruption: make reproduce RESUME=--resume
DATA ?= ../shared/data
WEIGHTS ?= ../shared/weights/efficientnet_v2_b0.safetensors

reproduce: install  ## train a captioner like the shipped one into runs/reproduced-phrases: 2.5 hours on two cores
	$(BIN)/python -m training.fit --output runs/reproduced $(RESUME) \
	    --captions $(DATA)/flickr8k/captions.json --images $(DATA)/flickr8k/images \
	    --captions $(DATA)/more_photos/captions.json --images $(DATA)/more_photos/images \
	    --encoder efficientnet_v2_b0 --encoder-weights $(WEIGHTS) \
	    --grid joined --query state_and_word --score-blur 2 --precision bf16 --cache-features \
	    --epochs 9 --frozen-epochs 3 --self-critical-epochs 2 --self-critical-learning-rate 1e-4
	$(BIN)/python -m training.phrases --checkpoint runs/reproduced --output runs/reproduced-phrases \
	    --captions $(DATA)/flickr8k/captions.json --images $(DATA)/flickr8k/images \
	    --captions $(DATA)/more_photos/captions.json --images $(DATA)/more_photos/images \
	    --image-size 256 --min-count 22 --seed 1 --precision bf16
	$(BIN)/python -m training.evaluate --checkpoint runs/reproduced-phrases \
	    --captions $(DATA)/flickr8k/captions.json --images $(DATA)/flickr8k/images --split val --save

install: $(VENV)/installed-run
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is required; select it with make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-run: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@
