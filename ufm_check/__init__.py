"""The independent checker of certificates: the rules of chapter 6 of docs/theory.md.

It imports the standard library and python-flint, and none of the solver's code. Run it by `ufm-check FILE.json` or
`python -m ufm_check FILE.json`.
"""
