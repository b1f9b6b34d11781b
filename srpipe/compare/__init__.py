"""Two pictures side by side: a page with a slider, or a strip of crops."""
