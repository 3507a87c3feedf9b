"""What happens to files: single bits flip, ends are cut off, blocks become zero."""

import random
from collections.abc import Iterator


def damages(content: bytes, times: int, seed: int = 0) -> Iterator[bytes]:
    """So many damaged copies: of each four two with one flipped bit, one cut short, and one with a block of zeros."""
    generator = random.Random(seed)
    while times:
        kind, place, copy = times % 4, generator.randrange(len(content)), bytearray(content)
        if kind in (0, 1):
            copy[place] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del copy[place:]
        else:
            block = min(2 ** generator.randrange(13), len(content) - place)
            copy[place : place + block] = bytes(block)
        if copy != content:
            times -= 1
            yield bytes(copy)
