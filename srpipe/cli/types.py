"""What the commands share: a name that argparse does not export, and a help text."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

NEEDS_OVERWRITE = "replace TARGET if it exists"
