"""The API reference, as Markdown, from what the docstrings say."""
