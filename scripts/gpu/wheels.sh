#!/usr/bin/env bash
# Downloads, as wheels, what Cherry's check imports and a GPU machine without network lacks.
#
#   scripts/gpu/wheels.sh [FOLDER]     (default: .whl; say so in .git/info/exclude if it is to stay untracked)
#
# That machine has Python 3.12, torch 2.11, triton, transformers 5.17, peft, accelerate, numba, numpy, pandas,
# pyarrow, scipy, scikit-learn, safetensors, tokenizers, regex, jinja2, psutil, pytest and hypothesis. Take the
# folder and `git archive HEAD` along; together they have to stay under LIMIT MiB. Only what the parts of the
# check import is here: no grader with a library of its own, no database and no queue but for their clients.
set -euo pipefail
FOLDER=${1:-.whl}
LIMIT=${LIMIT:-64}
PYTHON=${PYTHON:-.venv/bin/python}
mkdir -p "$FOLDER"

NAMES=(
    # the engine and its graders
    llguidance rapidfuzz pydantic pydantic-core typing-inspection annotated-types structlog httpx2 httpcore2
    truststore sniffio
    # bases in 4 and 8 bits
    bitsandbytes
    # trl, and what it reads data with
    trl datasets dill multiprocess
    # the sampler's settings and tables
    pydantic-settings python-dotenv sqlalchemy greenlet psycopg psycopg-binary fastapi starlette opentelemetry-api
    python-multipart obstore cryptography cffi pycparser
)
for name in "${NAMES[@]}"; do
    pin=$(grep -i -E "^${name//[-_]/[-_]}==" constraints.txt | head -1) || true
    nice -n 10 "$PYTHON" -m pip download --quiet --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        $(for n in 39 35 34 31 28 27 24 17; do echo "--platform manylinux_2_${n}_x86_64"; done) \
        --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "$FOLDER" "${pin:-$name}" ||
        echo "not found as a wheel: ${pin:-$name}"
done
"$PYTHON" -m scripts.gpu.one_cuda "$FOLDER" "${CUDA:-130}"
wheels=$(du -sk "$FOLDER" | cut -f1)
tree=$(($(git archive HEAD | wc -c) / 1024))
echo "wheels $((wheels / 1024)) MiB, tree $((tree / 1024)) MiB, together $(((wheels + tree) / 1024)) of $LIMIT MiB"
[ $(((wheels + tree) / 1024)) -lt "$LIMIT" ]
