"""Draw docs/images/demo.svg: what `orderkit demo` leaves on a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orderkit import Backoff, EmbeddedBroker, Faults, RetryPolicy, Run
from orderkit.show.closing import account_lines
from orderkit.show.view import View

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "demo.svg"
WIDTH = 96  # characters
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # from another site: a reader's own do as well


def main() -> None:
    """Run the demo with its defaults, and save its last frame and its account."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with EmbeddedBroker({}) as broker:
        faults = Faults(7, transient_rate=0.2, permanent_rate=0.01, poison_rate=0.01)
        run = Run(broker, faults=faults, policy=RetryPolicy(backoff=Backoff(base=0.02)))
        view = View(run.consumer, run.produced, run.orders)
        view.console = console
        run.start().wait(60)
        view.report = report = run.report()
        console.print(Text("$ orderkit demo"))
        console.print(view.render())
        for line in account_lines(report):
            console.print(line)
    drawn = FONTS.sub("", console.export_svg(title="orderkit demo"))
    PICTURE.write_text(drawn, "utf-8")
    print(f"{PICTURE}: {report}")


if __name__ == "__main__":
    main()
