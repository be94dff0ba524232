"""What at-most-once commits before it is done with: so much a crash may cost, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.members.commits import Committer


class Ahead:
    """Commits as a `Committer` does, and tells of the records that are committed before anybody is done with them.

    It tells `ahead` before such a commit, which may arrive though its answer does not; and `safe` when one has arrived
    that carries their fate. Whatever is done with since then is still ahead: its average dies with the process.

    Args:
        commits: makes the commits.
        tell: called with one of those words, a topic, a partition, and the offsets that the records had first.
    """

    def __init__(self, commits: Committer, tell: Callable[[str, str, int, list[int]], object]) -> None:
        self._commit, self._tell = commits.now, tell
        self._ahead: WeakKeyDictionary[Partition, dict[int, int]] = WeakKeyDictionary()

    def now(self, ready: Iterable[tuple[Partition, Checkpoint]], timeout: float = 10.0) -> bool:
        """Commit, wait for the answer, and tell."""
        pending = list(ready)
        for part, point in pending:
            known = self._ahead.setdefault(part, {})
            new = [offset for offset in _at_hand(part) if offset < point.offset and offset not in known]
            known.update((offset, part.retried.get(offset, offset)) for offset in new)
            self._tell("ahead", *part.key, [known[offset] for offset in new])
        done = self._commit(pending, timeout)
        for part, _ in pending:
            known = self._ahead[part]
            if not done:
                known.clear()  # nobody works on them, and no later commit says what became of them
            elif not part.points.outstanding:  # else one may be a dead letter that is not written yet
                self._tell("safe", *part.key, [known.pop(offset) for offset in known.keys() - _at_hand(part)])
        return done


def _at_hand(part: Partition) -> set[int]:
    """Give the records that were fetched and are not done with."""
    return {*part.park.offsets(), *part.backlog.offsets}
