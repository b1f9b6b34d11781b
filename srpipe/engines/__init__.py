"""Ways to carry out a plan: serial (the reference) and local (a process for every stage)."""
