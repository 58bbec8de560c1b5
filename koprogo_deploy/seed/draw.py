"""Random choices that come out the same on every Python.

Python promises that a seeded ``random.Random`` keeps producing the same ``random()`` in later
versions, and promises it of no other method
(https://docs.python.org/3/library/random.html#notes-on-reproducibility): so every choice here is
made from ``random()`` alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import fsum
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """One reproducible stream of choices; the same key always gives the same stream."""

    def __init__(self, *key: object) -> None:
        self._random = random.Random("koprogo-seed/" + "/".join(map(str, key)))  # noqa: S311

    def fraction(self) -> float:
        """A number from 0 (included) to 1 (excluded)."""
        return self._random.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def between(self, low: float, high: float, digits: int) -> float:
        """A number from `low` to `high`, rounded to `digits` decimals."""
        return round(low + self._random.random() * (high - low), digits)

    def chance(self, probability: float) -> bool:
        """True with this probability (0 to 1)."""
        return self._random.random() < probability

    def one(self, choices: Sequence[T]) -> T:
        """One of the choices, each as likely as the others."""
        return choices[int(self._random.random() * len(choices))]

    def weighted(self, choices: Sequence[tuple[T, float]]) -> T:
        """One of the choices, each as likely as its weight (above 0) says."""
        point = self._random.random() * fsum(weight for _, weight in choices)
        for choice, weight in choices:
            point -= weight
            if point < 0:
                return choice
        return choices[-1][0]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The same items in another order (Fisher-Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = int(self._random.random() * (last + 1))
            order[last], order[other] = order[other], order[last]
        return order
