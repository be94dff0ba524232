"""A ledger in a file: every attempt is kept, memory is bounded, and a crash costs no row that was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import AT_ONCE, Kit, take_orders

from orderkit.account.block import Attempt
from orderkit.account.export import LedgerExport, read_ledger
from orderkit.account.sinks import COLUMNS
from orderkit.account.tally import AVERAGED, RETRY
from orderkit.errors import OrderkitError, UsageError
from orderkit.ledger import Ledger
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order

KINDS = ("ledger.csv", "ledger.parquet")


def note(ledger: Ledger, first: int, many: int, partition: int = 0) -> None:
    """Fill a ledger with orders that went well, the first of them after a retry."""
    orders: list[Order] = take_orders(many)
    offsets = list(range(first, first + many))
    attempts = [Attempt(0, 1.0, 1, RETRY, 0.5, "transient", "TimeoutError: late"), Attempt(0, 2.0, 2, AVERAGED)]
    ledger.took("orders", partition, offsets)
    ledger.note(3.0, "orders", partition, offsets, orders, attempts, many, set())


def exported(path: Path, ledger: Ledger, *parts: tuple[int, int]) -> None:
    """Export while the ledger fills, part by part."""
    with LedgerExport(ledger, path) as export:
        for first, many in parts:
            note(ledger, first, many)
            export()


@pytest.mark.parametrize("name", KINDS)
def test_every_attempt_is_in_the_file_once(name: str, tmp_path: Path) -> None:
    """Counts, order and content are those of the ledger, though it forgot most of them meanwhile."""
    ledger = Ledger(keep=100)
    exported(tmp_path / name, ledger, *((first, 50) for first in range(0, 1000, 50)))
    frame = read_ledger(tmp_path / name)
    assert ledger.dropped > 0
    assert list(frame.columns) == list(COLUMNS)
    assert frame["fate"].value_counts().to_dict() == {"averaged": 1000, "retry": 20}
    assert frame.loc[frame["fate"] == "averaged", "offset"].tolist() == list(range(1000))
    first = frame.iloc[0]
    assert (first["order_id"], first["attempt"], first["wait"], first["reason"]) == ("1", 1, 0.5, "transient")
    assert first["error"] == "TimeoutError: late"


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_continued(name: str, tmp_path: Path) -> None:
    """A second process writes on where the first one ended; each has its own `run`."""
    for first in (0, 10):
        exported(tmp_path / name, Ledger(), (first, 10))
    frame = read_ledger(tmp_path / name)
    assert frame.loc[frame["fate"] == "averaged", "offset"].tolist() == list(range(20))
    assert frame["run"].nunique() == 2


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    """The next process cuts the half line off and goes on; whole lines stay."""
    path = tmp_path / "ledger.csv"
    exported(path, Ledger(), (0, 10))
    with path.open("ab") as file:
        file.write(b"abc,1,2.0,ord")
    exported(path, Ledger(), (10, 5))
    assert (read_ledger(path)["fate"] == "averaged").sum() == 15


@pytest.mark.parametrize("name", KINDS)
def test_what_a_rebalance_took_back_is_void(name: str, tmp_path: Path) -> None:
    """Rows that were written before their partition went away uncommitted are told as undone when they are read."""
    ledger = Ledger()
    with LedgerExport(ledger, tmp_path / name) as export:
        note(ledger, 0, 10)
        export.write()
        ledger.forget_from("orders", 0, 6)
        export.write()
        note(ledger, 6, 4)
    fates = read_ledger(tmp_path / name)["fate"].value_counts().to_dict()
    assert (fates["averaged"], fates["undone"]) == (10, 4)


@pytest.mark.parametrize("name", KINDS)
def test_texts_of_any_kind_come_back(name: str, tmp_path: Path) -> None:
    """Commas, quotes, line ends and umlauts in an error are text, not structure."""
    told = 'ValueError: "a, b"\nnext line, ü'
    ledger = Ledger()
    ledger.took("orders", 0, [0])
    ledger.note(1.0, "orders", 0, [0], take_orders(1), [Attempt(0, 1.0, 1, RETRY, 0.0, "transient", told)], 0, set())
    exported(tmp_path / name, Ledger())
    with LedgerExport(ledger, tmp_path / name) as export:
        export.written = 0
        export.write()
    (error,) = read_ledger(tmp_path / name)["error"]
    assert error == (told.replace("\n", "\\n") if name.endswith("csv") else told)


def test_events_that_were_dropped_unwritten_are_an_error(tmp_path: Path) -> None:
    """A file that claims to hold every attempt must not have a silent gap."""
    ledger = Ledger(keep=10)
    export = LedgerExport(ledger, tmp_path / "ledger.csv")
    for first in range(0, 100, 10):
        note(ledger, first, 10)
    with pytest.raises(OrderkitError, match="too fast to be written"):
        export.close()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("ledger.txt", None, "must end in .csv or .parquet"),
        ("ledger.csv", b"a,b,c\n1,2,3\n", "is no ledger"),
        ("ledger.parquet", b"PAR1", "a folder is made there"),
        ("missing/ledger.csv", None, "cannot be written"),
    ],
)
def test_a_wrong_file_is_refused_and_left_alone(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    """One line says why, and what was there is not touched."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((UsageError, OrderkitError), match=told):
        LedgerExport(Ledger(), path)
    assert content is None or path.read_bytes() == content


def test_a_consumer_with_a_small_ledger_writes_all_it_did(tmp_path: Path) -> None:
    """Beside a running consumer the file has every attempt, and agrees with the group's average."""
    kit = Kit(partitions=2)
    kit.send_orders(take_orders(500))
    ledger = Ledger(keep=2000)
    faults = Faults(2, transient_rate=0.3)
    consumer = kit.consumer(faults.strike, policy=AT_ONCE, ledger=ledger)
    with LedgerExport(ledger, tmp_path / "ledger.csv") as export:

        def write() -> Any:
            export()
            return False

        consumer.run(orders=500, until=write)
    frame = read_ledger(tmp_path / "ledger.csv")
    good = frame[frame["fate"] == "averaged"]
    average = kit.state().average
    assert len(good) == average.count
    assert good["price"].mean() == pytest.approx(average.mean)
    assert (frame["fate"] == "retry").sum() == ledger.retries > 0
