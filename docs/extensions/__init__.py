"""What the site needs beyond its generator: citations of the book, docstrings in Markdown, --help, notebooks."""
