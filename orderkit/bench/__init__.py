"""The whole job, measured side by side: orderkit and its peers on one broker, results checked before a rate counts."""

from orderkit.bench.contenders import CONTENDERS, PRODUCERS, Contender, Entry, choose
from orderkit.bench.contest import Row, contest
from orderkit.bench.stage import Expected, Stage

__all__ = ["CONTENDERS", "PRODUCERS", "Contender", "Entry", "Expected", "Row", "Stage", "choose", "contest"]
