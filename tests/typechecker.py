"""The runtime type checker of the test suite: beartype, for which an int is a float (PEP 484's numeric tower)."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
