"""How often each record was finished, and how: what no double and no gap can hide from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

# An attempt's outcome. "undone": it had a final fate that was not committed, and will be delivered again.
FATES = ("averaged", "retry", "dead", "skipped", "undone")
AVERAGED, RETRY, DEAD, SKIPPED, UNDONE = range(5)
NOT_SEEN, TAKEN, FINISHED = range(3)  # in a tally: 3 and more mean finished more than once
MOST_BACK = 100_000  # offsets given back that a tally remembers; older ones are the work of others by now


class Tally:
    """How often each offset of one partition was finished, and how: two bytes an offset, 20 MB for 10,000,000."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.cells = bytearray()
        self.fates = bytearray()  # the latest final fate of each finished offset
        self.given_back: list[int] = []  # offsets that were not finished, or not for good: somebody gets them again

    def _reach(self, low: int, high: int) -> None:
        before, behind = max(0, self.base - low), max(0, high + 1 - self.base - len(self.cells))
        for row in (self.cells, self.fates):
            row[:0] = bytes(before)
            row.extend(bytes(behind))
        self.base = min(self.base, low)

    def take(self, offsets: Sequence[int]) -> None:
        """Note that these records were fetched; a second fetch changes nothing."""
        if self._swap(offsets, NOT_SEEN, TAKEN):
            return
        for offset in offsets:
            self.cells[offset - self.base] |= 0 if self.cells[offset - self.base] else TAKEN

    def finish(self, offsets: Sequence[int], fates: Sequence[int] | None = None) -> None:
        """Note that these records were averaged or, by `fates`, dead-lettered or skipped."""
        fates = bytes(len(offsets)) if fates is None else fates
        if run := self._swap(offsets, TAKEN, FINISHED):
            self.fates[run] = bytes(fates)
            return
        for offset, fate in zip(offsets, fates, strict=True):
            i = offset - self.base
            self.cells[i] = min(255, max(TAKEN, self.cells[i]) + 1)
            self.fates[i] = fate

    def _swap(self, offsets: Sequence[int], old: int, new: int) -> slice | None:
        """Move a gapless run of offsets from one state to another at once, if all of them are in it."""
        low, many = offsets[0], len(offsets)
        in_a_row = offsets[-1] - low == many - 1 and offsets == list(range(low, low + many))
        self._reach(low if in_a_row else min(offsets), offsets[-1] if in_a_row else max(offsets))
        run = slice(low - self.base, low + many - self.base)
        if not in_a_row or self.cells[run].count(old) != many:
            return None
        self.cells[run] = bytes([new]) * many
        return run

    def forget_from(self, offset: int, keep: Callable[[int], bool] | None = None) -> list[int]:
        """Void everything from `offset` on, but what `keep` says; give how many fates of each kind that was."""
        void = [0] * len(FATES)
        self._forget_retaken()
        for i in range(max(0, offset - self.base), len(self.cells)):
            if self.cells[i] and (keep is None or not keep(self.base + i)):
                void[self.fates[i]] += max(0, self.cells[i] - TAKEN)
                self._give_back(i)
        return void

    def give_back(self) -> None:
        """Note that records without a fate are somebody else's now."""
        self._forget_retaken()
        i = -1
        while (i := self.cells.find(TAKEN, i + 1)) >= 0:
            self._give_back(i)

    def _forget_retaken(self) -> None:
        self.given_back = [back for back in self.given_back if not self.cells[back - self.base]][-MOST_BACK:]

    def _give_back(self, i: int) -> None:
        self.given_back.append(self.base + i)
        self.cells[i] = NOT_SEEN

    def taken(self, still_open: Callable[[int], bool]) -> list[int]:
        """List the offsets that were taken; of those given back, the ones that are open for the group still."""
        return sorted({*filter(still_open, self.given_back), *self.offsets(TAKEN)})

    def offsets(self, least: int) -> list[int]:
        """List the offsets in this state or a later one."""
        return [self.base + i for i, state in enumerate(self.cells) if state >= least]

    def with_fate(self, fate: int) -> list[int]:
        """List the finished offsets whose latest fate is this one."""
        return [offset for offset in self.offsets(FINISHED) if self.fates[offset - self.base] == fate]

    def once(self) -> list[int]:
        """List the offsets that were finished exactly once."""
        return [self.base + i for i, state in enumerate(self.cells) if state == FINISHED]

    def count(self, *states: int) -> int:
        """Count the offsets in one of these states."""
        return sum(self.cells.count(state) for state in states)

    def doubled(self) -> int:
        """Count how many times an offset was finished beyond its first."""
        often = Counter(self.cells)
        return sum((state - FINISHED) * seen for state, seen in often.items() if state > FINISHED)
