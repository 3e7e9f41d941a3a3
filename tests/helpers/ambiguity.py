"""Whether a regular expression can take exponential time: whether a repetition in it reads one text in two ways.

A repetition is made into an automaton; if a state of it leads back to itself along two different ways that read the
same text, n repetitions of that text can be read in 2^n ways, and a search engine that goes back tries them all (Weber
and Seidl, "On the degree of ambiguity of finite automata", 1991: criterion EDA). Possessive repetitions do not go back.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from re import _constants as op  # type: ignore[attr-defined]  # the parser of the standard library, which has no other
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_OTHER = 128  # stands for every character beyond ASCII
_ALL = frozenset(range(_OTHER + 1))
_WORDS = frozenset(i for i in range(_OTHER) if re.match(r"\w", chr(i))) | {_OTHER}
_CATEGORIES = {
    op.CATEGORY_DIGIT: frozenset(range(48, 58)),
    op.CATEGORY_WORD: _WORDS,
    op.CATEGORY_SPACE: frozenset(i for i in range(_OTHER) if chr(i).isspace()),
}
_CATEGORIES |= {
    op.CATEGORY_NOT_DIGIT: _ALL - _CATEGORIES[op.CATEGORY_DIGIT],
    op.CATEGORY_NOT_WORD: _ALL - _WORDS,
    op.CATEGORY_NOT_SPACE: _ALL - _CATEGORIES[op.CATEGORY_SPACE],
}
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT)


def ambiguous_repetitions(expression: re.Pattern[Any]) -> list[str]:
    """Return the repetitions of an expression, as the parser shows them, that can be read in two ways."""
    source = expression.pattern if isinstance(expression.pattern, str) else expression.pattern.decode("latin-1")
    tree = parser.parse(source, expression.flags & ~re.UNICODE | re.UNICODE)
    folded = bool(expression.flags & re.IGNORECASE)
    return [str(body)[:200] for body in _bodies(tree) if _Automaton(folded).is_ambiguous(body)]


def _bodies(tree: Any) -> Iterator[Any]:
    """Yield what is repeated without end, at any depth, where the engine may go back."""
    for kind, value in tree:
        if kind in _REPEATS:
            if value[1] == op.MAXREPEAT:
                yield value[2]
            yield from _bodies(value[2])
        elif kind is op.POSSESSIVE_REPEAT:
            yield from _bodies(value[2])
        elif kind is op.SUBPATTERN:
            yield from _bodies(value[3])
        elif kind is op.ATOMIC_GROUP:
            yield from _bodies(value)
        elif kind is op.BRANCH:
            for one in value[1]:
                yield from _bodies(one)
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            yield from _bodies(value[1])


class _Automaton:
    """Thompson's construction: steps that read a character of a set, and steps that read nothing."""

    def __init__(self, folded: bool) -> None:
        self._folded = folded
        self._reading: dict[int, list[tuple[frozenset[int], int]]] = defaultdict(list)
        self._silent: dict[int, list[int]] = defaultdict(list)
        self._states = 0

    def is_ambiguous(self, body: Any) -> bool:
        start = self._state()
        self._silent[self._sequence(body, start)].append(start)
        edges = self._edges()
        if any(edges[a][b, chars] > 1 for a in edges for b, chars in edges[a]):  # two silent ways before one character
            return True
        return any(self._meets_again(state, edges) for state in edges)

    def _meets_again(self, state: int, edges: dict[int, dict[tuple[int, frozenset[int]], int]]) -> bool:
        """Whether two ways part at a state, read the same text and come back to it."""
        todo, seen = [(state, state, False)], set[tuple[int, int, bool]]()
        while todo:
            one, other, parted = todo.pop()
            if (one, other, parted) in seen:
                continue
            seen.add((one, other, parted))
            for a, first in edges[one]:
                for b, second in edges[other]:
                    if not first & second:
                        continue
                    apart = parted or a != b
                    if apart and a == b == state:
                        return True
                    if a in edges and b in edges:
                        todo.append((a, b, apart))
        return False

    def _edges(self) -> dict[int, dict[tuple[int, frozenset[int]], int]]:
        """Return for each state the steps that read a character, silent ones before it taken, and in how many ways.

        A way may come by a state twice, as one that reads nothing in a turn of a repetition does.
        """
        found: dict[int, dict[tuple[int, frozenset[int]], int]] = {}
        starts = {0, *(target for steps in self._reading.values() for _, target in steps)}
        for start in starts:
            ways: dict[tuple[int, frozenset[int]], int] = defaultdict(int)
            todo: list[tuple[int, tuple[int, ...]]] = [(start, (start,))]
            while todo:
                state, way = todo.pop()
                for chars, target in self._reading[state]:
                    ways[target, chars] += 1
                todo += [(target, (*way, target)) for target in self._silent[state] if way.count(target) < 2]
            found[start] = dict(ways)
        return found

    def _state(self) -> int:
        self._states += 1
        return self._states - 1

    def _sequence(self, items: Any, start: int) -> int:
        at = start
        for kind, value in items:
            at = self._item(kind, value, at)
        return at

    def _item(self, kind: Any, value: Any, start: int) -> int:
        if kind in (*_REPEATS, op.POSSESSIVE_REPEAT):
            least, most, body = value
            return self._repeat(least, most, body, start)
        if kind is op.SUBPATTERN:
            return self._sequence(value[3], start)
        if kind is op.ATOMIC_GROUP:
            return self._sequence(value, start)
        if kind is op.BRANCH:
            end = self._state()
            for one in value[1]:
                self._silent[self._sequence(one, start)].append(end)
            return end
        if kind in (op.AT, op.ASSERT, op.ASSERT_NOT):
            return start
        end = self._state()
        self._reading[start].append((self._chars(kind, value), end))
        return end

    def _repeat(self, least: int, most: int, body: Any, start: int) -> int:
        at = start
        for _ in range(min(least, 2)):  # further turns add nothing that two do not show
            at = self._sequence(body, at)
        if most == op.MAXREPEAT:
            turn, end = self._state(), self._state()
            self._silent[at].append(turn)
            self._silent[self._sequence(body, turn)].append(turn)
            self._silent[turn].append(end)
            return end
        end = self._state()
        for _ in range(min(most - least, 2)):
            self._silent[at].append(end)
            at = self._sequence(body, at)
        self._silent[at].append(end)
        return end

    def _chars(self, kind: Any, value: Any) -> frozenset[int]:
        if kind is op.LITERAL:
            return self._fold({min(value, _OTHER)})
        if kind is op.NOT_LITERAL:
            return _ALL - self._fold({min(value, _OTHER)})
        if kind is op.ANY:
            return _ALL - {10}
        assert kind is op.IN, kind
        return self._set(value)

    def _set(self, items: Sequence[Any]) -> frozenset[int]:
        found: set[int] = set()
        for kind, value in items:
            if kind is op.LITERAL:
                found.add(min(value, _OTHER))
            elif kind is op.RANGE:
                found.update(min(i, _OTHER) for i in range(value[0], min(value[1], _OTHER) + 1))
            elif kind is op.CATEGORY:
                found |= _CATEGORIES[value]
        chars = self._fold(found)
        return _ALL - chars if items[0][0] is op.NEGATE else chars

    def _fold(self, chars: set[int]) -> frozenset[int]:
        if not self._folded:
            return frozenset(chars)
        both = {c for i in chars - {_OTHER} for c in (chr(i).lower(), chr(i).upper())}
        return frozenset(map(ord, both)) | (chars & {_OTHER})
