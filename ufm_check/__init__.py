"""The rules of the checker, chapter 6 of docs/theory.md: the standard library and python-flint, no solver."""
