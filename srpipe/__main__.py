"""``python -m srpipe``."""

import sys

from srpipe.cli.main import main

sys.exit(main())
