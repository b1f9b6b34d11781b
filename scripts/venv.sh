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
