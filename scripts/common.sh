# What the scripts share: the project's folder, its virtual environment, Debian's packages. To be sourced.

root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
venv="${ARCHIVE_VENV:-$root/.venv}"

# Compiling the archive takes longer than importing it: what is compiled is kept, whatever the environment prefers.
unset PYTHONDONTWRITEBYTECODE

# as_root COMMAND...: run it where that needs no password; fails where it would.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n true 2>/dev/null && sudo -n "$@"
    fi
}

# apt PACKAGE...: install Debian packages where that is possible; fails quietly where not.
apt() {
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    command -v apt-get >/dev/null || return 1
    # The lists are fetched only where the install does not work without.
    as_root "${install[@]}" >/dev/null 2>&1 && return
    as_root apt-get update -qq >/dev/null 2>&1 && as_root "${install[@]}" >/dev/null 2>&1
}

# need TOOL PACKAGE: have a program, by apt where it may; else say what to type.
need() {
    command -v "$1" >/dev/null && return
    echo "$1 is missing, trying apt-get install $2 …" >&2
    apt "$2" && command -v "$1" >/dev/null && return
    echo "error: $1 is needed. As root: apt-get install $2" >&2
    return 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed. As root: apt-get install python3 python3-venv" >&2
    return 1
}

make_venv() {
    local python package
    python="$(find_python)"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        # Debian keeps these in a package of their own, one for each version of Python.
        package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        echo "Python's venv module is missing, trying apt-get install $package …" >&2
        apt "$package" || apt python3-venv || {
            echo "error: a virtual environment cannot be made. As root: apt-get install $package" >&2
            return 1
        }
    fi
    "$python" -m venv "$venv"
}

# environment EXTRA: make the virtual environment, or bring it up to date when the metadata has changed.
environment() {
    local extra="$1" stamp wanted
    wanted="$(cat "$root/setup.cfg" "$root/pyproject.toml" | sha256sum | cut -c1-16)"
    stamp="$venv/.installed-${extra:-run}"
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    mkdir -p "$venv"
    (
        flock 9 # two scripts at once would spoil one another's installation
        [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit
        "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
        echo "installing into $venv …" >&2
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root${extra:+[$extra]}"
        echo "$wanted" >"$stamp"
    ) 9>"$venv/.lock"
}
