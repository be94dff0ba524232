"""What a crash test came to, and what a set of them did: a table for people, a frame for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING

from orderkit.crash.audit import Verdict
from orderkit.crash.plan import CrashPlan

if TYPE_CHECKING:
    import pandas as pd

NAMES = (
    "seed", "delivery", "what went wrong", "orders", "averaged", "dead", "lost", "at risk", "repeated", "doubled",
    "again", "average", "time", "verdict",
)  # fmt: skip
SUMS = (
    "plans",
    "kill -9",
    "other injuries",
    "orders",
    "lost",
    "at risk",
    "repeated",
    "doubled",
    "out of order",
    "average exact",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a plan.

    Args:
        plan: the plan.
        verdict: of the audit.
        sprung: numbers of the injuries that came about; the others were never reached.
        starts: of workers, the first ones included.
        gave_up: workers that ended by themselves with an error, and were started again.
        complaint: the last of their errors.
        rebalances: assignments of the consumer that had most of them.
        stubborn: workers that did not end after SIGTERM.
        seconds: it took.
        notes: when orders were handled again: which, where assignments began, and what members warned of; when the
            time was up: what was awaited.
    """

    plan: CrashPlan
    verdict: Verdict
    sprung: tuple[int, ...]
    starts: int
    gave_up: int
    complaint: str
    rebalances: int
    stubborn: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def kills(self) -> int:
        """How often a process was ended by kill -9."""
        return sum(self.plan.injuries[number].act == "kill" for number in self.sprung)

    @property
    def broken(self) -> list[str]:
        """Promises of the delivery mode that were not kept."""
        stuck = [f"{name} did not end after SIGTERM" for name in self.stubborn]
        stood_still = any(self.plan.injuries[number].act in ("freeze", "cut") for number in self.sprung)
        return self.verdict.broken(self.plan.delivery, stood_still) + stuck


class Outcomes:
    """Outcomes of crash tests, in the order of their seeds.

    Args:
        outcomes: one for each plan.
        failed: plans that could not be carried out or judged, each with the reason.
        spoilt: plans that were carried out again, on another broker, for Kafka had lost the end of a transaction.
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        failed: Sequence[tuple[CrashPlan, str]] = (),
        spoilt: Sequence[tuple[CrashPlan, str]] = (),
    ) -> None:
        self.failed, self.spoilt = failed, spoilt
        self.all = sorted(outcomes, key=lambda outcome: (outcome.plan.delivery, outcome.plan.seed))

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def broken(self) -> list[Outcome]:
        """Those in which a promise was not kept."""
        return [outcome for outcome in self.all if outcome.broken]

    def rows(self) -> list[tuple[str, ...]]:
        """Give a row for each plan, under `NAMES`."""
        return [_row(outcome) for outcome in self.all]

    def sums(self) -> dict[str, dict[str, int]]:
        """Add up, for each delivery mode, what `SUMS` names."""
        return {mode: _sums(outcomes) for mode, outcomes in self._by_mode().items()}

    def _by_mode(self) -> dict[str, list[Outcome]]:
        modes: dict[str, list[Outcome]] = {}
        for outcome in self.all:
            modes.setdefault(outcome.plan.delivery, []).append(outcome)
        return modes

    def table(self) -> str:
        """Give a line for each plan, under a head."""
        return _aligned([NAMES, *self.rows()])

    def summary(self) -> str:
        """Give a line for each delivery mode, under a head."""
        rows = [(mode, *map(str, sums.values())) for mode, sums in self.sums().items()]
        spared = sum(not outcome.kills for outcome in self.all)
        told = f"\n{spared} of {len(self)} plans had no kill -9: nobody passed there that often" if spared else ""
        return _aligned([("delivery", *SUMS), *rows]) + told

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.summary()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        return f"<table>{line(NAMES, 'th')}{''.join(line(row, 'td') for row in self.rows())}</table>"

    def frame(self) -> pd.DataFrame:
        """Give a row for each plan: `seed`, `delivery`, `engine`, `injuries`, `kills`, and the account of its audit."""
        import pandas as pd  # noqa: PLC0415  pandas is loaded by those who want a frame

        return pd.DataFrame([as_dict(outcome) for outcome in self.all])


def as_dict(outcome: Outcome) -> dict[str, object]:
    """Give an outcome in plain values."""
    plan = outcome.plan
    return {
        "seed": plan.seed,
        "delivery": plan.delivery,
        "engine": plan.engine,
        "injuries": [str(plan.injuries[number]) for number in outcome.sprung],
        "not_reached": [str(injury) for number, injury in enumerate(plan.injuries) if number not in outcome.sprung],
        "kills": outcome.kills,
        **asdict(outcome.verdict),
        "starts": outcome.starts,
        "rebalances": outcome.rebalances,
        "gave_up": outcome.gave_up,
        "complaint": outcome.complaint,
        "seconds": round(outcome.seconds, 2),
        "broken": outcome.broken,
        "notes": list(outcome.notes),
    }


def _row(outcome: Outcome) -> tuple[str, ...]:
    plan, verdict = outcome.plan, outcome.verdict
    wrong = "; ".join(str(plan.injuries[number]) for number in outcome.sprung) or "nothing"
    counts = (
        verdict.produced, verdict.averaged, verdict.dead, verdict.lost, verdict.at_risk,
        verdict.repeated, verdict.doubled, verdict.handled_again,
    )  # fmt: skip
    average = f"{verdict.average} {'exact' if verdict.exact else 'of ' + verdict.truth}"
    told = "; ".join(outcome.broken) or "kept"
    return str(plan.seed), plan.delivery, wrong, *map(str, counts), average, f"{outcome.seconds:.0f} s", told


def _sums(outcomes: Sequence[Outcome]) -> dict[str, int]:
    def total(name: str) -> int:
        return sum(getattr(outcome.verdict, name) for outcome in outcomes)

    kills = sum(outcome.kills for outcome in outcomes)
    return dict(
        zip(
            SUMS,
            (
                len(outcomes), kills, sum(len(outcome.sprung) for outcome in outcomes) - kills, total("produced"),
                total("lost"), total("at_risk"), total("repeated"), total("doubled"), total("out_of_order"),
                total("exact"),
            ),
            strict=True,
        )
    )  # fmt: skip


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
