"""The account of a run, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from orderkit.show.markup import report_html


@dataclass(frozen=True)
class Report:
    """The account of a run: produced = averaged + dead + skipped + in flight, or something is wrong.

    Args:
        produced: orders that the broker acknowledged (or, without a producer in the run, that were taken).
        averaged, dead, skipped: orders with that fate.
        in_flight: orders with no fate yet, that will be delivered again.
        lost: orders with no fate that will not be delivered again, or whose dead letter is missing.
        duplicated: fates beyond an order's first.
        retries: failed delivery attempts that were followed by another.
        average: the group's running average, as a decimal string.
        seed: decides orders and fates.
        broker: what kind of broker it was.
        expired: orders that went out of the log before anybody was done with them: the topic's retention took them, or
            somebody who deleted records, or the whole topic.
        count: orders in the average: the group's, so there may be more of them than were averaged in this run.
        counted: what `produced` counts: "produced", or "taken" where nothing was produced in this run.
        lost_to_crashes: orders that at-most-once delivery had committed when a crash came: at most, for some of their
            dead letters may have been written. The group's, before this run: they are not in its sums.
    """

    produced: int
    averaged: int
    dead: int
    skipped: int
    in_flight: int
    lost: int
    duplicated: int
    retries: int
    average: str
    seed: int
    broker: str
    expired: int = 0
    count: int = 0
    counted: Literal["produced", "taken"] = "produced"
    lost_to_crashes: int = 0

    @property
    def conserved(self) -> bool:
        """Whether every order is accounted for, once: none is lost, none doubled, and none expired unread."""
        return self._adds_up and not self.expired

    @property
    def _adds_up(self) -> bool:
        accounted = self.averaged + self.dead + self.skipped + self.in_flight + self.expired
        return not self.lost and not self.duplicated and self.produced == accounted

    @property
    def verdict(self) -> str:
        """What the sums come to, in a few words."""
        if not self._adds_up:
            return "THE LAW IS BROKEN"
        return f"{self.expired} expired unread" if self.expired else "every order is accounted for"

    def as_dict(self) -> dict[str, object]:
        """Give the report as it goes into JSON: the keys that all versions of it have, and what crashes have cost."""
        left_out = ("count", "counted") if self.lost_to_crashes else ("count", "counted", "lost_to_crashes")
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def __str__(self) -> str:
        sums = f"{self.produced} {self.counted} = {self.averaged} averaged + {self.dead} dead + {self.skipped} skipped"
        expired = f" + {self.expired} expired" if self.expired else ""
        return (
            f"{sums} + {self.in_flight} in flight{expired}; {self.retries} retries; "
            f"lost {self.lost}, duplicated {self.duplicated}; "
            f"average {self.average} over {self.count} orders{self.crashes}: {self.verdict}"
        )

    @property
    def crashes(self) -> str:
        """What crashes have cost the group, in words; nothing, if they have not."""
        many = self.lost_to_crashes
        return f" (crashes cost the group up to {many} more: committed first, and never finished)" if many else ""

    def _repr_html_(self) -> str:
        return report_html(self)
