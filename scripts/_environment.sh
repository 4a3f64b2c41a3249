# shellcheck shell=bash
# Sourced by the scripts beside this file: the Python that they run.
#
# set_up EXTRAS leaves the working directory at the checkout's root and $python naming an interpreter
# that has the package (editable) with those extras: in .venv, or where $here is true in the active
# environment. A stamp in the environment says what was installed last, so that a second run skips pip.
# A .venv that was killed half-way is made anew, because pip takes a half-copied package for a whole one.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
here=${here:-false}
python=""
readonly minimum="3.11"

say() { printf '%s\n' "$*"; }

die() {
  printf '%s\n' "$@" >&2
  exit 1
}

set_up() {
  cd "$root" || exit
  if "$here"; then
    find_active_python
  else
    make_venv
  fi
  install_package "$1"
}

new_enough() { "$1" -c "import sys; sys.exit(sys.version_info < (${minimum/./, }))" >/dev/null 2>&1; }

find_active_python() {
  python=$(command -v python || command -v python3) || die "--here: no 'python' on the PATH."
  new_enough "$python" ||
    die "--here: nas needs Python $minimum or newer; the active one ($python) is $("$python" --version 2>&1)." \
      "Activate another environment, or leave --here out."
}

# The first interpreter that is new enough and able to make an environment.
find_base_python() {
  local name found lacks_venv=""
  local -a names=(python3 python3.13 python3.12 python3.11 python)
  [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
  for name in "${names[@]}"; do
    if ! found=$(command -v "$name") || ! new_enough "$found"; then
      continue
    fi
    if "$found" -c "import ensurepip, venv" >/dev/null 2>&1; then
      python=$found
      return
    fi
    lacks_venv=${lacks_venv:-$found}
  done
  if [[ -n $lacks_venv ]]; then
    die "$lacks_venv cannot make environments: its modules venv and ensurepip are not installed." \
      "On Debian and Ubuntu: sudo apt install $("$lacks_venv" -c \
        'import sys; print("python{}.{}-venv".format(*sys.version_info))'), then run this again."
  fi
  found=$("${names[0]}" --version 2>&1) || found="no ${names[0]}"
  die "nas needs Python $minimum or newer; found: $found." \
    "Install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python)," \
    "or name one: PYTHON=/path/to/python3 $0"
}

make_venv() {
  if [[ ! -e .venv/nas-setup-unfinished ]] && venv_works; then
    python=$root/.venv/bin/python
    return
  fi
  if [[ -e .venv || -L .venv ]]; then
    say "The environment .venv is unfinished or broken: making it anew."
    # Now, because where .venv is active its python3 would be found below; pyvenv.cfg first, because
    # without it no later run can take what a killed rm left for a whole environment.
    rm -f .venv/pyvenv.cfg
    rm -rf .venv
  fi
  find_base_python
  say "Making the environment .venv with $("$python" --version) ($python)"
  mkdir .venv
  touch .venv/nas-setup-unfinished
  "$python" -m venv .venv || die "Could not make $root/.venv; the message above says why."
  python=$root/.venv/bin/python
}

venv_works() {
  local inside=$root/.venv/bin/python
  [[ -x $inside ]] && new_enough "$inside" || return 1
  # Without its pyvenv.cfg it runs too, but installs into the system.
  [[ $("$inside" -c "import sys; print(sys.prefix)") == "$root/.venv" ]] || return 1
  # ensurepip is for environments that were made without a pip, as uv makes them.
  has_pip "$inside" || { "$inside" -m ensurepip >/dev/null 2>&1 && has_pip "$inside"; }
}

has_pip() { "$1" -m pip --version >/dev/null 2>&1; }

install_package() {
  local extras=$1 prefix wanted found="" status=0 began=$SECONDS
  prefix=$("$python" -c "import sys; print(sys.prefix)")
  wanted=$(setup_hash)
  [[ ! -f $prefix/nas-setup ]] || found=$(<"$prefix/nas-setup")
  # dev holds the extras of all the others.
  if [[ $found == "$wanted $extras" || $found == "$wanted dev" ]]; then
    return
  fi
  say "Installing nas[$extras] into $prefix"
  warn_about_cuda
  rm -f "$prefix/nas-setup"
  "$here" || touch "$prefix/nas-setup-unfinished"
  trap 'exit 130' INT
  "$python" -m pip install --disable-pip-version-check --editable ".[$extras]" || status=$?
  trap - INT
  # A pip that failed by itself has put back what it took away; one that was killed has not.
  ((status >= 128)) || rm -f "$prefix/nas-setup-unfinished"
  ((status == 0)) || die "pip could not install nas[$extras]; its message is above. Run this again when that is mended."
  [[ ! -w $prefix ]] || printf '%s %s\n' "$wanted" "$extras" >"$prefix/nas-setup"
  say "Installed in $((SECONDS - began)) s."
}

# Whatever makes an install stale: the requirements, the interpreter, the folder that "editable" points at.
setup_hash() {
  "$python" -c '
import hashlib, pathlib, sys
data = pathlib.Path("pyproject.toml").read_bytes() + repr((sys.version, str(pathlib.Path.cwd()))).encode()
print(hashlib.sha256(data).hexdigest())'
}

warn_about_cuda() {
  local settings
  [[ $(uname -sm) == "Linux x86_64" ]] || return 0
  ! command -v nvidia-smi >/dev/null || return 0
  ! "$python" -c "import importlib.metadata as m; m.version('torch')" >/dev/null 2>&1 || return 0
  settings=$("$python" -m pip config list 2>/dev/null) || settings=""
  [[ ! $settings =~ find-links|index-url ]] || return 0
  say "Note: no NVIDIA GPU was found, and PyPI's PyTorch for Linux brings several GB of CUDA libraries. To get a" \
    "CPU build, point pip at one through pip's own settings (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL, pip.conf)."
}
