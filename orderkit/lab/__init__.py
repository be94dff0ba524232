"""What notebooks use: runs with knobs, a chart that follows them, pictures, and exercises that check themselves."""

from orderkit.errors import OrderkitError

try:
    from orderkit.lab import truths
    from orderkit.lab.account import Account
    from orderkit.lab.check import check
    from orderkit.lab.controls import controls
    from orderkit.lab.experiment import experiment
    from orderkit.lab.live import LiveChart
    from orderkit.lab.picture import Picture, dead_picture, picture
    from orderkit.run import Run
except ModuleNotFoundError as missing:
    library = str(missing.name).partition(".")[0]
    raise OrderkitError(f'orderkit.lab needs {library}: pip install "orderkit[lab]".') from None

__all__ = [
    "Account",
    "LiveChart",
    "Picture",
    "Run",
    "check",
    "controls",
    "dead_picture",
    "experiment",
    "picture",
    "truths",
]
