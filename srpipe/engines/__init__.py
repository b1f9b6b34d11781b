"""Ways to carry out a plan: serial (the reference), threads, and local (a process for every stage)."""
