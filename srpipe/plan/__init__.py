"""Pure functions and frozen values: no processes, no files, no models."""
