#!/usr/bin/env bash
# Builds .venv-metaworld: Meta-World 3.1.1 and the mujoco 3.3.0 that it pins, for the processes that run it. `make
# metaworld` calls it after ./setup.sh, whose .venv has what it takes to make another, and whose machine can render.
#   METAWORLD_PYTHON  interpreter to build it with; default: the first of .venv's own, python3.13 ... python3.11 that fits
set -euo pipefail
cd "$(dirname "$0")"

fail() { printf 'set-up stopped: %s\n' "$*" >&2; exit 1; }

# mujoco 3.3.0 has no wheel for a Python above 3.13, and our side of it needs 3.11.
fits='import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
candidates=${METAWORLD_PYTHON:-.venv/bin/python python3.13 python3.12 python3.11}
python=""
for name in $candidates; do
    if "$name" -c "$fits" 2>/dev/null; then
        python=$name
        break
    fi
done
[ -n "$python" ] || fail "no Python of 3.11 to 3.13 with its venv module among: $candidates"

which='import sys; print(sys.base_prefix, sys.version)'
if ! .venv-metaworld/bin/python -m pip --version >/dev/null 2>&1 ||
    { [ -n "${METAWORLD_PYTHON:-}" ] && [ "$(.venv-metaworld/bin/python -c "$which")" != "$("$python" -c "$which")" ]; }; then
    printf '== building .venv-metaworld with %s\n' "$("$python" --version)"
    "$python" -m venv --clear .venv-metaworld
fi
# packaging: gymnasium's MuJoCo environments import it, and do not ask for it.
.venv-metaworld/bin/python -m pip install --disable-pip-version-check --quiet metaworld==3.1.1 packaging ||
    fail "pip could not install metaworld==3.1.1"
.venv/bin/python -m envs.suites.metaworld
