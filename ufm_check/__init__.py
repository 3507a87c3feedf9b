"""The independent checker of certificates: the rules of chapter 6 of docs/theory.md.

It imports the standard library and python-flint, and nothing of the solver. `ufm-check FILE.json` and
`python -m ufm_check FILE.json` run it.
"""
