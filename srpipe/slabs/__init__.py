"""One image on many machines: a job cut into slabs, each computed by itself, and joined at the end."""
