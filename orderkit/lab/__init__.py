"""What notebooks use: runs with knobs, a chart that follows them, pictures, and exercises that check themselves."""

from orderkit.errors import OrderkitError

try:
    from orderkit.lab import targets, truths
    from orderkit.lab.account import Account
    from orderkit.lab.arrival import Burst, Shelf
    from orderkit.lab.attempts import attempts_made, attempts_picture, heat_map
    from orderkit.lab.averages import funnel, true_mean, true_spread
    from orderkit.lab.bench import Bench
    from orderkit.lab.byteview import BitFlips, byte_picture, dissect, flip, flip_picture, silent_flips
    from orderkit.lab.check import check
    from orderkit.lab.compare import compare
    from orderkit.lab.crashes import barcode, batches, crash, sawtooth
    from orderkit.lab.deaths import death, deaths, deaths_picture, deaths_table
    from orderkit.lab.experiment import experiment
    from orderkit.lab.fates import planned_retries, progress_picture, reasons_picture
    from orderkit.lab.gameday import GameDay
    from orderkit.lab.kills import kill_costs, kills, kills_picture
    from orderkit.lab.lanes import lanes_picture
    from orderkit.lab.lines import Line, line, lines_picture, lines_table
    from orderkit.lab.live import Live
    from orderkit.lab.monday import Monday
    from orderkit.lab.pace import pace_picture, sent_back
    from orderkit.lab.parameters import parameters
    from orderkit.lab.picture import Picture, dead_picture, picture
    from orderkit.lab.recovery import Service, recovery, recovery_picture, spread, waves
    from orderkit.lab.scenario import Scenario
    from orderkit.lab.shares import broker_letters, deliveries, gaps, gaps_picture, overtaken, share_run
    from orderkit.lab.speed import bars, best_of, commits_picture, committing, idle_picture, reading, stairs_picture
    from orderkit.lab.table import Table
    from orderkit.lab.waiting import herd, herd_picture, measured_picture, peak, waits_picture
    from orderkit.lab.ways_back import anatomy, copy_back, homecoming, left_after, rounds_picture, unspoilt
    from orderkit.run import Run
except ModuleNotFoundError as missing:
    library = str(missing.name).partition(".")[0]
    raise OrderkitError(f'orderkit.lab needs {library}: pip install "orderkit[lab]".') from None

__all__ = [
    "Account",
    "Bench",
    "BitFlips",
    "Burst",
    "GameDay",
    "Line",
    "Live",
    "Monday",
    "Picture",
    "Run",
    "Scenario",
    "Service",
    "Shelf",
    "Table",
    "anatomy",
    "attempts_made",
    "attempts_picture",
    "barcode",
    "bars",
    "batches",
    "best_of",
    "broker_letters",
    "byte_picture",
    "check",
    "commits_picture",
    "committing",
    "compare",
    "copy_back",
    "crash",
    "dead_picture",
    "death",
    "deaths",
    "deaths_picture",
    "deaths_table",
    "deliveries",
    "dissect",
    "experiment",
    "flip",
    "flip_picture",
    "funnel",
    "gaps",
    "gaps_picture",
    "heat_map",
    "herd",
    "herd_picture",
    "homecoming",
    "idle_picture",
    "kill_costs",
    "kills",
    "kills_picture",
    "lanes_picture",
    "left_after",
    "line",
    "lines_picture",
    "lines_table",
    "measured_picture",
    "overtaken",
    "pace_picture",
    "parameters",
    "peak",
    "picture",
    "planned_retries",
    "progress_picture",
    "reading",
    "reasons_picture",
    "recovery",
    "recovery_picture",
    "rounds_picture",
    "sawtooth",
    "sent_back",
    "share_run",
    "silent_flips",
    "spread",
    "stairs_picture",
    "targets",
    "true_mean",
    "true_spread",
    "truths",
    "unspoilt",
    "waits_picture",
    "waves",
]
