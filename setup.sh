#!/usr/bin/env bash
# Builds .venv, makes sure that cameras can be rendered, and gets a browser for the tests. `make` calls it whenever
# pyproject.toml has changed.
#   PYTHON  interpreter to build .venv with; default: the first of python3, python3.14 ... python3.11 that is new enough
#   TORCH   what to ask pip for; default: torch==2.13.0, unless .venv already has a torch of at least 2.9
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '== %s\n' "$*"; }
fail() { printf 'set-up stopped: %s\n' "$*" >&2; exit 1; }

install_system_packages() {
    local as_root=""
    if ! command -v apt-get >/dev/null; then
        fail "this system has no apt-get; install what Debian calls: $*"
    elif [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "please run: sudo apt-get update && sudo apt-get install -y $*"
        as_root="sudo -n"
    fi
    say "installing system packages: $*"
    # An update fails as a whole when any one source of the machine does; whether it sufficed is seen by installing.
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || true
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        fail "apt-get could not install: $*"
}

find_python() {
    local name candidates=${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}
    for name in $candidates; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "no Python of at least 3.11 among: $candidates"
}

make_venv() {
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        install_system_packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    say "building .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

has_torch() {
    .venv/bin/python - <<'PYTHON' 2>/dev/null
from importlib.metadata import version
major, minor = map(int, version("torch").split(".")[:2])
raise SystemExit((major, minor) < (2, 9))
PYTHON
}

pip_install() {
    local quiet=""
    [ -t 1 ] || quiet=--quiet
    .venv/bin/python -m pip install --disable-pip-version-check $quiet "$@"
}

# Whether .venv is there, and of the interpreter that was asked for, if one was.
has_venv() {
    local which='import sys; print(sys.base_prefix, sys.version)'
    .venv/bin/python -m pip --version >/dev/null 2>&1 || return 1
    [ -z "${PYTHON:-}" ] || [ "$(.venv/bin/python -c "$which")" = "$("$(find_python)" -c "$which")" ]
}

has_venv || make_venv

if [ -n "${TORCH:-}" ] || ! has_torch; then
    torch=${TORCH:-torch==2.13.0}
    say "installing $torch"
    # shellcheck disable=SC2086  # several words: TORCH may carry options of pip
    pip_install $torch || fail "pip could not install $torch; llamarm takes others, e.g. make setup TORCH='torch>=2.9'"
fi

say "installing llamarm and what it needs"
pip_install --editable '.[dev,docs]'

if ! backend=$(.venv/bin/python -m envs.simulation.gl 2>/dev/null); then
    # shellcheck disable=SC2046  # one word per package
    install_system_packages $(.venv/bin/python -c 'from envs.simulation.gl import APT_PACKAGES; print(*APT_PACKAGES)')
    backend=$(.venv/bin/python -m envs.simulation.gl) || fail "cameras cannot be rendered, for the reason above"
fi
# Of the tests, those of the live page need a browser; nothing else does.
has_browser() {
    local name
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return
    done
    return 1
}
if ! has_browser && ! (install_system_packages chromium fonts-dejavu-core); then
    say "going on without Chromium, for the reason above: the tests of the live page will be skipped"
fi
say "ready: $(.venv/bin/python --version), torch $(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))'), rendering through $backend"
