"""A running average that no order of arrival, restart or merge can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from fractions import Fraction

# Every float32 is a whole number of 2**-149 (IEEE 754, smallest subnormal), so sums in this unit are exact integers.
BITS = 149
UNIT = 2.0**BITS
LARGEST = 2**277 - 2**253  # the largest float32, in this unit
# A float64 holds 53 bits: a sum of float32s is exact in it while largest sum / smallest unit fits.
_EXACT = 2.0**53
_FLOAT32_BITS = 2.0**24
_EXACTLY = Context(prec=500, traps=[Inexact, InvalidOperation])  # what would not be exact is an error


@dataclass
class RunningAverage:
    """Count and exact sum of prices.

    Args:
        count: prices added.
        total: their sum, in units of 2**-149.
    """

    count: int = 0
    total: int = 0

    def add(self, price: float) -> None:
        """Add one price, as read from Avro (float32)."""
        self.count += 1
        self.total += int(price * UNIT)

    def add_all(self, prices: Sequence[float]) -> None:
        """Add many prices: the same result as one by one, and quicker."""
        if not prices:
            return
        rough = sum(prices)
        # The smallest price that is not 0 fixes the finest unit in the sum: price / 2**24 at the most.
        smallest = min(prices) or min(filter(None, prices), default=1.0)
        if rough / smallest * _FLOAT32_BITS * 2 < _EXACT:
            self.total += int(rough * UNIT)
        else:
            self.total += sum(int(price * UNIT) for price in prices)
        self.count += len(prices)

    def merge(self, other: RunningAverage) -> RunningAverage:
        """Give the average of both, as if one had seen all prices."""
        return RunningAverage(self.count + other.count, self.total + other.total)

    @property
    def mean(self) -> float:
        """The average as a float, for charts; 0.0 before the first price."""
        return float(self._exact()) if self.count else 0.0

    def _exact(self) -> Fraction:
        return Fraction(self.total, self.count << BITS)

    def rounded(self, places: int = 4) -> str:
        """Give the average as a decimal string; the only place where anything is rounded (half to even)."""
        scaled = round(self._exact() * 10**places) if self.count else 0
        return f"{Decimal(scaled).scaleb(-places, _EXACTLY):f}"

    @property
    def sum(self) -> str:
        """The exact sum as a decimal string: a whole number of 2**-149 always has one."""
        exact = _EXACTLY.divide(Decimal(self.total), Decimal(2**BITS))
        return f"{exact.normalize(_EXACTLY):f}"

    @classmethod
    def from_sum(cls, count: int, text: str) -> RunningAverage:
        """Take up an average from its count and its `sum`, with nothing lost.

        Raises:
            ValueError: the text is no decimal number, or no sum of float32 prices.
        """
        try:
            units = _EXACTLY.multiply(Decimal(text), Decimal(2**BITS))
        except ArithmeticError:
            raise ValueError(f"{text!r} is no sum of prices") from None
        fits = units.is_finite() and 0 <= units <= count * LARGEST
        if not fits or units != units.to_integral_value():
            raise ValueError(f"{text!r} is no sum of prices")
        return cls(count, int(units))
