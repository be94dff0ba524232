"""The way back of dead letters: moved with brakes, behind acknowledgements, and noted in a journal."""

from orderkit.replay.job import Replay, default_group
from orderkit.replay.journal import Entry, read_journal
from orderkit.replay.mending import Mender, Transform, load_transform
from orderkit.replay.parallel import ParallelReplay
from orderkit.replay.report import ReplayReport
from orderkit.replay.seen import ReplayCheck, check_replays

__all__ = [
    "Entry",
    "Mender",
    "ParallelReplay",
    "Replay",
    "ReplayCheck",
    "ReplayReport",
    "Transform",
    "check_replays",
    "default_group",
    "load_transform",
    "read_journal",
]
