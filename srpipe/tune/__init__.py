"""What runs best here: tile, batch, and how sessions share the cores, found by timing the model."""
