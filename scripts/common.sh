# What the scripts share: the virtual environment. To be sourced from the project's folder.

# Where the environment is, and how a privileged command is run when we may.
venv="${ARCHIVE_VENV:-.venv}"
if [ "$(id -u)" = 0 ]; then
    as_root() { "$@"; }
elif sudo -n true 2>/dev/null; then
    as_root() { sudo -n "$@"; }
else
    as_root() { return 1; }
fi

# apt PACKAGE...: install Debian packages where that is possible; fails quietly where not.
apt() {
    command -v apt-get >/dev/null || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1 && return 0
    as_root apt-get update -qq >/dev/null 2>&1 || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2
    return 1
}

# environment EXTRA: make the virtual environment, or bring it up to date when setup.cfg has changed.
environment() {
    local extra="$1" python stamp wanted
    wanted="$(cat setup.cfg pyproject.toml | sha256sum | cut -c1-16)"
    stamp="$venv/.installed-${extra:-run}"
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ ! -x "$venv/bin/python" ]; then
        python="$(find_python)"
        if ! "$python" -m venv "$venv" 2>/dev/null; then
            rm -rf "$venv"
            apt python3-venv || true
            "$python" -m venv "$venv" || {
                echo "a virtual environment cannot be made: apt-get install python3-venv" >&2
                return 1
            }
        fi
    fi
    echo "installing into $venv …" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}"
    echo "$wanted" >"$stamp"
}
