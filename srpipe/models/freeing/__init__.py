"""Finding out what the numbers baked into a graph mean, and freeing batch, height and width."""
