"""What moves the pixels: scheduler, messages, slots, stages and their supervision."""
