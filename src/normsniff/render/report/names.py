"""Names of models on a page: short, but two files of one name are told apart by the folders that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def distinct(paths: Sequence[str]) -> list[str]:
    """Return for each path the shortest end of it that no other path has; of the same path twice, all of it.

    >>> distinct(["a/gemma/model.safetensors", "a/bert/model.safetensors", "b.gguf"])
    ['gemma/model.safetensors', 'bert/model.safetensors', 'b.gguf']
    """
    parts = [[part for part in path.replace("\\", "/").split("/") if part] or [path] for path in paths]
    depth = [1] * len(paths)
    while True:
        names = ["/".join(found[-n:]) for found, n in zip(parts, depth, strict=True)]
        often = Counter(names)
        alike = [i for i, name in enumerate(names) if often[name] > 1 and depth[i] < len(parts[i])]
        if not alike:
            return names
        for i in alike:
            depth[i] += 1
