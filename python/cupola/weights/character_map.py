"""SentencePiece's map of characters, checked before a library follows it that panics where it leads out of itself.

Owns the layout: the size of a trie, the trie (Darts-clone's double array of 32-bit units), and the strings that its
leaves stand for, each with a zero behind it. A walk stands at a unit and goes on to `base ^ byte`, which is a child if
its label is that byte.
"""

from __future__ import annotations

import numpy as np

from cupola.errors import ModelError

_BYTES = np.arange(1, 256, dtype=np.uint32)


def check_characters(content: bytes) -> None:
    """Raises a ModelError unless no text can lead out of the map."""
    size = int.from_bytes(content[:4], "little")
    if len(content) < 8 or size < 4 or size % 4 or 4 + size > len(content):
        raise _damaged("its trie is larger than it")
    units = np.frombuffer(content, "<u4", size // 4, 4)
    texts = content[4 + size :]
    bases = (units >> 10) << ((units & (1 << 9)) >> 6)
    seen = np.zeros(len(units), bool)
    walk = bases[:1]
    while walk.size:
        steps = walk[:, None] ^ _BYTES
        if int(steps.max()) >= len(units):
            raise _damaged("its trie leads out of itself")
        children = steps[(units[steps] & np.uint32(0x800000FF)) == _BYTES[None, :]]
        children = np.unique(children[~seen[children]])
        seen[children] = True
        walk = children.astype(np.uint32) ^ bases[children]
        leaves = walk[(units[children] >> 8 & 1) == 1]
        if leaves.size and int(leaves.max()) >= len(units):
            raise _damaged("its trie leads out of itself")
        for at in units[leaves] & np.uint32(0x7FFFFFFF):
            if int(at) >= len(texts) or 0x80 <= texts[int(at)] < 0xC0:
                raise _damaged("a leaf stands for no text")


def _damaged(what: str) -> ModelError:
    return ModelError(f"the tokenizer's map of characters is damaged: {what}", hint="Download the checkpoint again.")
