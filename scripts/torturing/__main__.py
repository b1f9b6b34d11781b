"""``scripts/torture CAMPAIGN``."""

from __future__ import annotations

import argparse
import sys

from torturing import decode, fuzz, kill, mutate, power


def main() -> int:
    """Run one campaign; returns 1 if it found anything."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    campaigns = parser.add_subparsers(dest="campaign", required=True, metavar="CAMPAIGN")
    for module in (kill, power, fuzz, decode, mutate):
        module.add_parser(campaigns)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
