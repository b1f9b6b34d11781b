"""Big pictures to try srpipe on, and measurements of its speed and memory."""
