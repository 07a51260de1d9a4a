# Sourced by script/demo, script/test and script/check: brings a machine with nothing but python3 to the point where
# .venv holds hsmjwt and what the script needs. A second run finds all in place and changes nothing.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/softhsm/install.sh"

stop() {
  say "$*"
  exit 1
}

# Set $python: what PYTHON names, else the first of the usual names that is new enough.
choose_python() {
  local name names=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$name
      return
    fi
  done
  name=${names[0]}
  command -v "$name" >/dev/null || stop "there is no '$name' here; Python 3.11 or later is needed (PYTHON=/path/to/python names one)"
  stop "'$name' is $("$name" --version 2>&1); Python 3.11 or later is needed (PYTHON=/path/to/python names another)"
}

# Set $missing: the Debian packages whose contents are absent; $@ are programs wanted beside the usual, as PROGRAM or as
# PROGRAM:PACKAGE where the package has another name.
find_missing() {
  local program
  missing=()
  if ! command -v softhsm2-util >/dev/null || ! { [ -r "${HSMJWT_MODULE:-}" ] || softhsm_module >/dev/null; }; then
    missing+=(softhsm2)
  fi
  # Other systems keep the certificates elsewhere, and venv is always a part of their Python.
  if [ -e /etc/debian_version ]; then
    "$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    [ -s /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
  fi
  for program in "$@"; do
    command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
  done
}

# Print one value for all that .venv is made from. The folder counts: an environment knows its own.
fingerprint() {
  "$python" - "$root" <<'PY'
import hashlib
import pathlib
import sys

root = pathlib.Path(sys.argv[1])
seen = hashlib.sha256(f"{root}\0{sys.base_prefix}\0{sys.version}".encode())
for path in [root / "pyproject.toml", root / "script/setup.sh", *sorted((root / "requirements").glob("*.txt"))]:
    seen.update(b"\0" + path.read_bytes())
print(seen.hexdigest())
PY
}

# Does .venv start, hold every pin of the requirements files $@, and find hsmjwt in this folder? Imports none of it.
sound() {
  "$root/.venv/bin/python" - "$root" "$@" 2>/dev/null <<'PY'
import importlib.metadata
import importlib.util
import pathlib
import sys

root = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    for line in (root / "requirements" / f"{name}.txt").read_text().splitlines():
        package, pinned, rest = line.partition("==")
        if pinned and importlib.metadata.version(package) != rest.split()[0]:
            sys.exit(1)
found = importlib.util.find_spec("hsmjwt")
command = pathlib.Path(sys.prefix, "bin/hsmjwt")
sys.exit(not (found and found.origin == str(root / "hsmjwt/__init__.py") and command.is_file()))
PY
}

pip_install() { "$root/.venv/bin/python" -m pip install -qq --no-input --no-user --disable-pip-version-check "$@" >&2; }

pip_pinned() { pip_install --require-hashes --only-binary :all: "$@"; }

# Does .venv hold all that the script $1 needs (demo, or dev for test and check), made from what is here now?
complete() {
  local files=(build runtime demo)
  [ "$1" = demo ] || files+=("$1")
  [ "$(cat "$root/.venv/complete-$1" 2>/dev/null)" = "$made" ] && sound "${files[@]}"
}

# prepare demo|dev [PROGRAM…]: all that the script needs is there afterwards, or the script has ended with a reason.
# The files .venv/complete-* go before a change and come back after it, so that what was interrupted is made anew.
prepare() {
  local want=$1 made
  shift
  trap 'trap - INT; say "interrupted; run it again, and it is made anew"; kill -INT $$' INT
  choose_python
  find_missing "$@"
  if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}" || exit 1
    find_missing "$@"
    [ ${#missing[@]} = 0 ] || stop "installed and still absent: ${missing[*]}, as '$(command -v "$python")' sees it"
  fi
  # Two at once wait for each other. The lock is on the folder itself, so that no file is left.
  if command -v flock >/dev/null; then
    exec 9<"$root/script"
    flock 9
  fi
  made=$(fingerprint) || stop "'$python' cannot read the files of '$root'"
  if ! complete "$want"; then
    if [ "$want" = dev ] && complete demo; then
      rm -f "$root"/.venv/complete-*
    else
      say "making .venv with $("$python" --version 2>&1)"
      rm -f "$root"/.venv/complete-*
      "$python" -m venv --clear "$root/.venv" >&2 || stop "the virtual environment '$root/.venv' cannot be made"
      pip_pinned -r "$root/requirements/build.txt" || stop "pip and the build backend cannot be installed"
      say "installing hsmjwt and its pinned dependencies"
      pip_pinned -r "$root/requirements/runtime.txt" -r "$root/requirements/demo.txt" || stop "the dependencies cannot be installed"
      pip_install --no-deps --no-build-isolation --editable "$root" || stop "hsmjwt cannot be installed"
    fi
    if [ "$want" = dev ]; then
      say "installing what tests and checks need"
      pip_pinned -r "$root/requirements/dev.txt" || stop "what tests and checks need cannot be installed"
      printf '%s\n' "$made" >"$root/.venv/complete-dev"
    fi
    printf '%s\n' "$made" >"$root/.venv/complete-demo"
  fi
  exec 9<&-
  trap - INT
}
