"""The crash lab: real processes hurt on purpose, from a seeded plan, and an audit of what is left."""

from orderkit.crash.lanes import crash_test
from orderkit.crash.outcomes import Outcome, Outcomes, as_dict
from orderkit.crash.plan import ACTS, POINTS, CrashPlan, Injury, make_plan, make_plans

__all__ = [
    "ACTS",
    "POINTS",
    "CrashPlan",
    "Injury",
    "Outcome",
    "Outcomes",
    "as_dict",
    "crash_test",
    "make_plan",
    "make_plans",
]
