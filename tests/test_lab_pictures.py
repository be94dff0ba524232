"""The lab's pictures and tables say what is there: bytes, flips, answers, crashes, waits."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from helpers import shared

from orderkit.errors import UsageError
from orderkit.orders.avro import WIRES, Codec
from orderkit.orders.order import Order
from orderkit.retry import Poison

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab
from orderkit.lab import truths
from orderkit.lab.byteview import DEAD, WRONG, anatomy, flip_fates
from orderkit.lab.compare import CASES
from orderkit.lab.crashes import sawtooth

EXERCISES = sorted(
    name
    for name, found in vars(truths).items()
    if getattr(found, "__annotations__", {}).get("return") == "Case" and found.__module__ == truths.__name__
)
ORDER: Order = {"orderId": "1042", "product": "Lampe für €", "price": 29.99}


def axes_of(picture: lab.Picture) -> Any:
    """Give the panel of a picture."""
    return picture.figure.axes[0]


# Bytes


@pytest.mark.parametrize("wire", WIRES)
def test_the_parts_are_the_bytes(wire: str) -> None:
    """Put together again, the parts are the value; long texts have a length of two bytes."""
    longer: Order = {**ORDER, "product": "x" * 70}
    for order in (ORDER, longer):
        value = Codec(wire).encode(order)
        parts = anatomy(value)
        assert b"".join(part.data for part in parts) == value
        assert [part.name for part in parts][-5:] == ["length", "orderId", "length", "product", "price"]
    assert len(parts[-3].data) == 2


def test_bytes_that_are_no_order_have_no_anatomy() -> None:
    """Damaged bytes are refused as everywhere else."""
    with pytest.raises(Poison):
        anatomy(Codec().encode(ORDER)[:-1])


def test_a_dissected_order_is_a_table() -> None:
    """A row for each part, in text and in HTML; what could be markup is escaped."""
    marked: Order = {**ORDER, "product": "<b>"}
    table = lab.dissect(Codec("raw").encode(marked))
    assert repr(table).splitlines()[1].split() == ["08", "length", "4"]
    assert "&lt;b&gt;" in table._repr_html_()
    assert table._repr_html_().count("<tr>") == 6


def test_every_flipped_bit_has_its_fate() -> None:
    """Of an order in ASCII 7 bits a letter and 31 of the price go wrong unseen; the picture counts them."""
    order: Order = {"orderId": "7", "product": "Lamp", "price": 12.5}
    value = Codec().encode(order)
    fates = flip_fates(value)
    assert fates.count(WRONG) == lab.silent_flips(order) == 7 * 5 + 31
    assert fates.count(DEAD) == len(fates) - fates.count(WRONG)
    assert repr(lab.flip_picture(value)).startswith(f"{8 * len(value)} bits: ")


def test_a_bit_flips_back() -> None:
    """Flipping twice is nothing; bit 0 is the highest of the first byte."""
    value = b"\x00\x01\xff"
    assert lab.flip(value, 0) == b"\x80\x01\xff"
    assert all(lab.flip(lab.flip(value, bit), bit) == value for bit in range(24))
    with pytest.raises(UsageError, match="no bits"):
        lab.BitFlips(1).spoil("1", b"")


# Answers beside the target


def right(n: int, p: float, k: int) -> float:
    """Give the right answer of the first exercise."""
    return n * p**k


def dots(picture: lab.Picture) -> list[tuple[str, float, float]]:
    """List the dots of a comparison: colour and place."""
    lines = [line for line in axes_of(picture).lines if line.get_marker() == "o"]
    return [(line.get_color(), float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def test_right_answers_lie_on_the_diagonal_and_wrong_ones_have_another_colour() -> None:
    """Each case is a dot; its colour says whether it is right."""
    good = dots(lab.compare(right, truths.expected_dead))
    assert all(x == pytest.approx(y) for _, x, y in good)
    assert len({colour for colour, _, _ in good}) == 1
    bad = dots(lab.compare(lambda n, p, k: n * p * k + 1, truths.expected_dead))
    assert {colour for colour, _, _ in bad}.isdisjoint(colour for colour, _, _ in good)


@pytest.mark.parametrize("answer", [lambda *_: ..., lambda *_: None, lambda *_: 1 / 0, lambda: 1, lambda *_: "text"])
@pytest.mark.parametrize("truth", [truths.expected_dead, truths.wire_format, truths.reason])
def test_a_comparison_never_raises(answer: Any, truth: Any) -> None:
    """Whatever an answer does, there is a picture, and its text says whether there was an answer."""
    told = repr(lab.compare(answer, truth))
    assert told in ("Target only; no answer yet", "Target, and your answers")
    assert lab.compare(answer, truth).png().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_the_same_for_the_same_seed(name: str) -> None:
    """Cases are made from their seed alone, and they differ."""
    truth = getattr(truths, name)
    assert [repr(truth(Random(seed))) for seed in range(CASES)] == [repr(truth(Random(seed))) for seed in range(CASES)]
    assert len({repr(truth(Random(seed))) for seed in range(CASES)}) > 5


# Counts


def test_a_heat_map_has_a_number_in_each_field() -> None:
    """Measured, and in brackets theory; a field without a number stays empty."""
    shown = lab.heat_map([[1, 2.5], [float("nan"), 4]], ["a", "b"], [1, 2], "title", "x", "y", [[1, 2], [3, 4]])
    assert [text.get_text() for text in axes_of(shown).texts] == ["1\n(1)", "2.5\n(2)", "4\n(4)"]
    plain = lab.heat_map([[1.0]], ["a"], [1], "title", "x", "y")
    assert [text.get_text() for text in axes_of(plain).texts] == ["1"]


def test_the_funnel_and_the_attempts_say_what_was_measured() -> None:
    """Titles give measurement and theory; the bars are the ledger's counts."""
    run = lab.experiment(shared(), orders=100, failure_rate=0.5, max_attempts=2).start().wait(30)
    made = lab.attempts_made(run)
    assert made[0] == 100
    assert sum(made) == 100 + run.ledger.retries
    shown = lab.attempts_picture(run, [100, 50, 25])
    assert [bar.get_height() for bar in axes_of(shown).patches] == [*made, run.ledger.counts[2]]
    assert repr(shown) == f"{sum(made)} attempts, 150 expected"
    assert repr(lab.funnel(run)).startswith(f"{run.ledger.counts[0]} orders: average {float(run.report().average):.2f}")


def test_runs_without_a_retry_have_pictures_too() -> None:
    """Nothing failed: no wait, no reason, and no error."""
    run = lab.experiment(shared(), orders=10, failure_rate=0).start().wait(30)
    assert repr(lab.measured_picture(run)) == "0 waits"
    assert repr(lab.reasons_picture(run, {"poison": 0.0, "transient": 0.0})) == "10 orders: poison 0, transient 0"
    assert lab.attempts_picture(run, [10, 0, 0]).png()


# Crashes


def after(client: Any, handle: Any) -> None:
    """Handle, then commit."""
    for some in lab.batches(client, 3):
        for message in some:
            handle(message)
        client.commit(message=some[-1], asynchronous=False)


def before(client: Any, handle: Any) -> None:
    """Commit, then handle."""
    for some in lab.batches(client, 3):
        client.commit(message=some[-1], asynchronous=False)
        for message in some:
            handle(message)


def test_the_barcode_and_the_sawtooth_count() -> None:
    """Each order has a bar in the colour of how often it was handled; every crash is where theory has it."""
    shop = lab.Bench(shared(), orders=7)
    times = lab.crash(shop, after, 5)
    assert times == [1, 1, 1, 2, 2, 1, 1]
    shown = lab.barcode({"after": times})
    assert repr(shown) == "after: 0 lost, 2 twice"
    assert len({bar.get_facecolor() for bar in axes_of(shown).patches[:7]}) == 2
    assert repr(sawtooth(shop, before, after, 3)) == "6 of 6 crashes as theory says"
    assert repr(sawtooth(shop, after, before, 3)) == "0 of 6 crashes as theory says"


@pytest.mark.parametrize("at", [0, 8, -1])
def test_a_crash_after_no_order_is_refused(at: int) -> None:
    """The line names the parameter."""
    with pytest.raises(UsageError, match=rf"^crash_at is {at}; it must be an order that comes: from 1 to 7\.$"):
        lab.crash(lab.Bench(shared(), orders=7), after, at)


def test_a_loop_with_a_bug_ends_with_its_error() -> None:
    """Only the staged death is caught; the client is closed all the same."""

    def broken(_client: Any, _handle: Any) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        lab.crash(lab.Bench(shared(), orders=3), broken, 1)


# The bench


def test_a_bench_keeps_its_ledger_and_its_group() -> None:
    """Two consumers after each other: the second goes on where the first has committed, and the report covers both."""
    shop = lab.Bench(shared(), orders=20)
    shop.consumer().run(orders=8)
    assert [cell for row in shop.commits().rows for cell in row[:3]] == ["0", "8", "8"]
    shop.consumer().run(orders=12)
    report = shop.report()
    assert (report.produced, report.averaged, report.lost, report.duplicated) == (20, 20, 0, 0)
    assert shop.attempts("3") == [1]
