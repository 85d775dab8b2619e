#!/usr/bin/env bash
# The fast tests on each Python that is installed, with the newest JAX that it may have, and on the
# first of them with the oldest of all dependencies that pyproject.toml allows. Each runs in an environment of its own, in .venv-matrix/. The exit code is 1 if any
# fails, or none runs.
#
#     tests/matrix.sh tests/core tests/exact    # these tests alone
#
# PYTHONS are other versions than those below.
set -u
cd "$(dirname "$0")/.."
pythons=${PYTHONS:-3.11 3.12 3.13}
summary=()
ran=0 failed=0

# The interpreter of a version: on the path, or one of pyenv.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)" = "$1" ]; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# The lower bounds of the dependencies, as requirements.
oldest() {
    sed -n '/^dependencies/,/^]/s/^ *"\([a-z0-9-]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml
}

# Installs and tests in the environment $1, of the interpreter $2, with the requirements that follow.
in_environment() {
    local environment=.venv-matrix/$1 python=$2
    shift 2
    "$python" -m venv "$environment" &&
        "$environment/bin/python" -m pip install --quiet --upgrade --editable ".[test]" "$@" &&
        "$environment/bin/python" -m pytest -q -n 2 ${tests[@]+"${tests[@]}"}
}

# Runs one cell of the matrix: its name in words, its environment, its interpreter, requirements.
cell() {
    local name=$1
    shift
    echo "== $name"
    ran=$((ran + 1))
    if in_environment "$@"; then
        summary+=("$name: passed")
    else
        summary+=("$name: FAILED")
        failed=$((failed + 1))
    fi
}

tests=("$@")
first=""
for version in $pythons; do
    if python=$(find_python "$version"); then
        first=${first:-$version}
        cell "Python $version, the newest JAX" "$version" "$python" jax jaxlib
    else
        summary+=("Python $version: skipped, python$version is not installed")
    fi
done
if [ -n "$first" ]; then
    # shellcheck disable=SC2046 # a word for each requirement
    cell "Python $first, the oldest dependencies" "$first-oldest" "$(find_python "$first")" $(oldest)
fi

echo "== summary"
printf '%s\n' "${summary[@]}"
[ "$ran" -gt 0 ] && [ "$failed" -eq 0 ]
