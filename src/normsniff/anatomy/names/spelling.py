"""One spelling for all names: whatever parts words becomes the dots and underscores that the tables speak.

A name is words. Files part them by ``.``, ``/``, ``__``, ``|``, ``::``, ``->``, ``-``, spaces, by the brackets and
quotes of a key string, by capitals, or by nothing but underscores; alone or mixed in one file. `spell` writes them as
``model.layers.0.self_attn.q_proj.weight``: segments of words, the parameter's word for itself at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ... import meter
from . import conventions as c

_PARTING = re.compile(r"->|::|__|[./\\|:,;<>(){}\[\]'\"\s]+")
_PLAIN = re.compile(r"[a-z0-9_.]+")
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PIECES = re.compile(r"[a-z]+|[0-9]+")
_JOINED = re.compile(rf"(\w+)_(weight|bias|kernel|gamma|beta|{'|'.join(sorted(c.BATCH_STATISTICS))})")
_JOINED_TO_NORM = re.compile(r"(\w*(?:norm|ln)(?:_?[0-9]+)?)_(scale|shift|offset|g|b|w|alpha|a_2|b_2)")
_BLOCK_INSIDE = re.compile(rf"(?:^|_)(?:{'|'.join(sorted(c.BLOCKS - {'group', 'h'}))})_[0-9]+_")
_NUMBER = re.compile(r"(?<![A-Za-z0-9])[0-9]+(?![A-Za-z0-9])")
_LONGEST_PHRASE = 6  # words in a segment; `layer_norm_cross_attention_output` would have five
_PHRASE = 50  # steps: up to six phrases end at a word, and each is looked up and searched for
_MOST_WORDS = 40  # in one flat name; real ones have a dozen
_UNKNOWN = 1.5  # cost of a segment that no table knows, where one that is known costs 1: known phrases win

# Words that frameworks write with capitals and our tables without underscores.
_COMPOUNDS = c.words(
    "layernorm rmsnorm batchnorm groupnorm selfattention crossattention encdecattention densereludense mlpblock "
    "encoderblock decoderblock multiheaddotproductattention encodernorm decodernorm sublayer"
)
# What stands alone between separators and is in no table of its own.
_STRUCTURE = c.words(
    "model transformer bert roberta backbone attention attn self_attn self_attention cross_attn cross_attention "
    "encoder_attn mlp ffn ff feed_forward moe experts shared_expert mixer mamba output intermediate dense self_output "
    "intermediate_dense proj decoder encoder net block_sparse_moe layer_norm norm ln conv mlp_block"
)
_VOCABULARY = (
    _STRUCTURE
    | c.WRAPPERS
    | c.PARAMETERS
    | c.SIDE_TENSORS
    | c.BATCH_STATISTICS
    | c.BLOCKS
    | frozenset(c.TOWERS)
    | frozenset(c.SIDES)
    | frozenset(c.READERS)
    | c.WRITERS
    | c.EMBEDDINGS
    | c.UNEMBEDDINGS
)
_LAST_WORDS = c.PARAMETERS | c.SIDE_TENSORS | c.BATCH_STATISTICS
_NORMS = (*(pattern for _, pattern in c.SLOTS), c.FINAL_NORM, c.QUERY_KEY, c.EMBEDDING_NORM, c.OTHER_NORM)


class Speller:
    """Spells names, remembering every pattern (a name but for its numbers) that it has seen.

    Args:
        most: patterns to remember; a file with more follows nobody's convention, and further ones stay as they are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the name as the tables spell it."""
        numbers = _NUMBER.findall(name)
        pattern = _NUMBER.sub("0", name) if numbers else name
        spelled = self._known.get(pattern)
        if spelled is None:
            if len(self._known) >= self._most:
                return name
            spelled = self._known[pattern] = spell(pattern)
        if not numbers:
            return spelled
        if spelled == pattern:
            return name
        kept = iter(numbers)
        # a zero that stood for a number; what is fused with a word was no number of its own
        return (
            _NUMBER.sub(lambda match: next(kept, match[0]), spelled) if _count(spelled) == len(numbers) else spell(name)
        )


def _count(text: str) -> int:
    return len(_NUMBER.findall(text))


def spell(name: str) -> str:
    """Return the name as the tables spell it.

    >>> spell("['encoder']['layers'][3]['selfAttn']['qProj']['kernel']")
    'encoder.layers.3.self_attn.q_proj.kernel'
    >>> spell("model_layers_0_post_attention_layernorm_weight")
    'model.layers.0.post_attention_layernorm.weight'
    """
    meter.charge(20 + len(name), "spelling names")
    text = name.removesuffix(":0")
    if not _PLAIN.fullmatch(text) or "__" in text:
        text = _PARTING.sub(".", text.replace("_._", ".")).strip(".")
        text = text.replace("-", "_" if "." in text else ".")
        alone = "." not in text
        text = ".".join(_lowered(part, alone) for part in text.split(".") if part)
    segments: list[str] = []
    for part in text.split("."):
        flat = "_" in part.strip("_") and (part == text or _BLOCK_INSIDE.search(part) is not None)
        segments.extend(_cut(part) if flat else (part,))
    while len(segments) > 2 and segments[-1] in c.LAST_WRAPPERS and segments[-2] in _LAST_WORDS:
        segments.pop()
    return ".".join([*segments[:-1], *_parted(segments[-1])])


def _parted(last: str) -> Sequence[str]:
    """`q_proj_weight` -> `q_proj`, `weight`; words that contain a parameter's stay."""
    if last in _LAST_WORDS:
        return (last,)
    match = _JOINED.fullmatch(last) or _JOINED_TO_NORM.fullmatch(last)
    return (last,) if match is None else (match[1], match[2])


@lru_cache(maxsize=4096)
def _lowered(segment: str, alone: bool) -> str:
    """Write capitals as underscores, but for words that our tables have in one; split numbers off in a flat name."""
    lower = segment.lower()
    if segment in (lower, segment.upper()) or lower in _VOCABULARY:
        return lower
    words = "_".join(map(_word, segment.split("_")))
    return "_".join(_PIECES.findall(words)) if alone else words


def _word(text: str) -> str:
    lower = text.lower()
    if lower.rstrip("0123456789") in _COMPOUNDS:
        return lower
    return _BOUNDARY.sub("_", text).lower()


def _cut(text: str) -> list[str]:
    """Cut words that nothing but underscores part into segments: numbers of blocks, then the phrases that are known."""
    words = text.split("_")
    if len(words) > _MOST_WORDS:
        return [text]
    segments: list[str] = []
    run: list[str] = []
    for at, word in enumerate(words):
        if not word.isdecimal() or not run:
            (segments if word.isdecimal() and not run else run).append(word)
        elif run[-1] in _COUNTED or (at + 1 < len(words) and not _takes_number(run[-1], word)):
            segments += [*_phrases(run), word]
            run = []
        else:
            fused = run[-1] + word
            run[-1] = fused if fused in _VOCABULARY else f"{run[-1]}_{word}"
    return segments + _phrases(run)


_COUNTED = c.BLOCKS | c.words("mlp net ffn ff experts")  # a number behind these is a position


def _takes_number(word: str, number: str) -> bool:
    """Whether a number belongs to the word before it, as in `ln_1` and `fc_2`."""
    return word + number in _VOCABULARY or "norm" in word or word in ("ln", "a", "b", "fc", "linear", "lin", "conv")


def _phrases(words: Sequence[str]) -> list[str]:
    """Cut a run of words into the fewest segments that the tables know."""
    meter.charge(_PHRASE * len(words), "spelling names")
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the first n words, and where their last segment starts
    for stop in range(1, len(words) + 1):
        choices = []
        for start in range(max(0, stop - _LONGEST_PHRASE), stop):
            known = _is_known("_".join(words[start:stop]))
            if known or stop - start == 1:
                choices.append((best[start][0] + (1.0 if known else _UNKNOWN), start))
        best.append(min(choices))
    segments: list[str] = []
    stop = len(words)
    while stop:
        start = best[stop][1]
        segments.append("_".join(words[start:stop]))
        stop = start
    return segments[::-1]


@lru_cache(maxsize=4096)
def _is_known(phrase: str) -> bool:
    return phrase in _VOCABULARY or any(
        (match := pattern.search(phrase)) and match.end() - match.start() == len(phrase) for pattern in _NORMS
    )
