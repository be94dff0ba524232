"""What is right in the exercises: each makes one case from a random generator, for `check`."""

from __future__ import annotations

from random import Random

from orderkit.lab.check import Case


def expected_dead(chance: Random) -> Case:
    """Draw n orders, a failure rate p and k attempts: an order dies when all of them fail."""
    n, p, k = chance.randint(1, 10_000), chance.randint(0, 20) / 20, chance.randint(1, 8)
    return (n, p, k), n * p**k
