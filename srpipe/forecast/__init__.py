"""What a job would be and take: its plan, and a timed sample of it."""
