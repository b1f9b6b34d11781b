"""``python -m reference FILE``."""

import sys
from pathlib import Path

from .page import reference

Path(sys.argv[1]).write_text(reference())
