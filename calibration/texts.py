"""What the models learn: texts that Python and the system ship, a synthetic task, and small images."""

from __future__ import annotations

import sysconfig
from collections import Counter
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch

CHARACTERS = 101
"""Ids of the character vocabulary: 97 that occur and four that never do, as in real vocabularies."""
PAIRS = 509
"""Ids of the vocabulary of frequent pairs of characters."""
MASK = 100
TEXTS = ("python", "english", "c", "synthetic")
_SIZE = 1_200_000
_STATES = 60  # of the Markov chain: few enough to be learned in some hundred steps


@lru_cache(maxsize=4)
def _characters(name: str) -> np.ndarray:
    stdlib = Path(sysconfig.get_path("stdlib"))
    places = {
        "python": [(stdlib, "*.py"), (stdlib / "asyncio", "*.py"), (stdlib / "email", "*.py")],
        "english": [(Path("/usr/share/common-licenses"), "*"), (Path("/usr/share/doc"), "*/copyright")],
        "c": [(Path(sysconfig.get_path("include")), "**/*.h"), (Path("/usr/include"), "*.h")],
    }[name]
    files = [f for root, pattern in places if root.is_dir() for f in sorted(root.glob(pattern)) if f.is_file()]
    parts: list[str] = []
    for file in files:
        parts.append(file.read_text("utf-8", "ignore")[:60_000])
        if sum(map(len, parts)) > _SIZE:
            break
    raw = np.frombuffer("\n".join(parts)[:_SIZE].encode("ascii", "ignore"), np.uint8).astype(np.int64)
    raw = np.where(raw == 10, 127, raw)
    return raw[(raw >= 32)] - 32  # 0..95, the line end is 95


@lru_cache(maxsize=8)
def tokens(name: str, vocabulary: int) -> torch.Tensor:
    """Return a whole text as ids."""
    chars = _characters(name)
    if vocabulary == CHARACTERS:
        return torch.from_numpy(chars)
    pairs = [int(x) for x in chars[0 : len(chars) // 2 * 2].reshape(-1, 2) @ np.array([96, 1])]
    known = {p: i + CHARACTERS for i, (p, _) in enumerate(Counter(pairs).most_common(PAIRS - CHARACTERS))}
    out: list[int] = []
    for pair in pairs:
        if pair in known:
            out.append(known[pair])
        else:
            out += divmod(pair, 96)
    return torch.tensor(list(islice(out, len(out))))


class Text:
    """Batches of windows of a text, or of a synthetic task: a Markov chain whose second half repeats its first."""

    def __init__(self, name: str, vocabulary: int, rows: int, length: int, seed: int) -> None:
        self.vocabulary, self.rows, self.length, self.name = vocabulary, rows, length, name
        self._random = torch.Generator().manual_seed(seed)
        if name == "synthetic":
            logits = 3.0 * torch.randn(_STATES, _STATES, generator=torch.Generator().manual_seed(7))
            self._chain = logits.softmax(-1)
        else:
            self._ids = tokens(name, vocabulary)

    def batch(self) -> torch.Tensor:
        """Return ids (rows, length + 1)."""
        n = self.length + 1
        if self.name != "synthetic":
            start = torch.randint(len(self._ids) - n, (self.rows, 1), generator=self._random)
            return self._ids[start + torch.arange(n)]
        ids = torch.randint(_STATES, (self.rows, 1), generator=self._random)
        for _ in range(n // 2):
            ids = torch.cat([ids, torch.multinomial(self._chain[ids[:, -1]], 1, generator=self._random)], 1)
        return torch.cat([ids, ids], 1)[:, :n]

    def masked(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids (rows, length) with a quarter of them masked, and the targets (-100 elsewhere)."""
        ids = self.batch()[:, :-1]
        hidden = torch.rand(ids.shape, generator=self._random) < 0.25
        return ids.masked_fill(hidden, MASK), ids.masked_fill(~hidden, -100)


class Images:
    """Batches of (rows, 1, 16, 16) images and their class: gratings made here, or scikit-learn's packaged digits.

    ``tones`` are 256 samples of sound each, folded likewise: two voices whose pitches make the class.
    """

    def __init__(self, name: str, rows: int, seed: int) -> None:
        self.rows, self._random, self.name = rows, torch.Generator().manual_seed(seed), name
        if name == "digits":
            from sklearn.datasets import load_digits

            digits = load_digits()
            small = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
            self._images = torch.nn.functional.interpolate(small, scale_factor=2)
            self._classes = torch.tensor(digits.target)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and classes."""
        if self.name == "digits":
            at = torch.randint(len(self._classes), (self.rows,), generator=self._random)
            return self._images[at], self._classes[at]
        kind = torch.randint(10, (self.rows,), generator=self._random)
        if self.name == "tones":
            pitch = torch.stack([0.05 * 1.3 ** (kind % 5), 0.3 * 1.4 ** (kind // 5)], 1)[..., None]
            phase = torch.rand(self.rows, 2, 1, generator=self._random) * 6.28
            sound = torch.sin(pitch * torch.arange(256.0) * 2 + phase).sum(1)
            return (sound + 0.5 * torch.randn(sound.shape, generator=self._random)).view(-1, 1, 16, 16), kind
        angle = kind.view(-1, 1, 1) * torch.pi / 10
        phase = torch.rand(self.rows, 1, 1, generator=self._random) * 6.28
        y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
        wave = torch.sin(0.9 * (x * angle.cos() + y * angle.sin()) + phase)
        return (wave + 0.5 * torch.randn(wave.shape, generator=self._random))[:, None], kind
