"""The schema options as a user meets them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_schemas import FIELDS, ID, NOTE, ORDER, PRICE, PRODUCT, price, record, written

from orderkit.brokers import EmbeddedBroker
from orderkit.cli import main
from orderkit.orders.avro import WIRES, Codec
from orderkit.orders.order import Order

FOUR = Order(orderId="4", product="Dock", price=4.0)
NAMED = [Order(orderId=str(number), product="Dock", price=4.0) for number in range(6)]
BYTES = {"name": "note", "type": "bytes", "default": "\u00ff"}


class Desk:
    """Runs commands in this process, on one embedded broker."""

    def __init__(self, broker: EmbeddedBroker, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.broker, self._capsys, self._folder = broker, capsys, folder

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Give exit status, output and errors."""
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--bootstrap-server", self.broker.bootstrap])
        told = self._capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    def consume(self, *arguments: str) -> tuple[int, int, str]:
        """Consume what is there; give how many were averaged, how many died, and their average."""
        status, out, err = self.run("consume", "--orders", "6", "--idle", "20", "--json", *arguments)
        assert (status, err) == (0, "")
        report = json.loads(out)
        return report["averaged"], report["dead"], report["average"]

    def send(self, *values: bytes) -> None:
        """Put values into the topic, as they are."""
        producer = self.broker.connection.producer()
        for value in values:
            producer.produce("orders", value)
        assert producer.flush(10) == 0

    def file(self, name: str, content: Any) -> str:
        """Write a schema file."""
        path = self._folder / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)


@pytest.fixture
def desk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Give a broker, and a folder for schema files."""
    with EmbeddedBroker() as broker:
        yield Desk(broker, capsys, tmp_path)


@pytest.mark.parametrize("wire", WIRES)
def test_a_schema_with_a_new_default_reads_the_kit_s_own_orders(wire: str, desk: Desk) -> None:
    """Orders of the kit's own schema are averaged by a reader whose schema has a further field with a default."""
    newer = desk.file("newer.avsc", record(*FIELDS, NOTE))
    assert desk.run("produce", "--orders", "3", "--rate", "0", "--seed", "1", "--wire", wire)[0] == 0
    both = ["--orders", "3", "--rate", "0", "--seed", "2", "--wire", wire]
    assert desk.run("produce", "--schema", newer, *both)[0] == 0
    assert desk.consume("--schema", newer)[:2] == (6, 0)


@pytest.mark.parametrize("wire", WIRES)
def test_other_writers_orders_are_averaged_exactly(wire: str, desk: Desk) -> None:
    """Orders with whole prices, of a writer that the option names, are averaged beside the kit's own."""
    longs = Path(desk.file("longs.avsc", price("long")))
    union = Path(desk.file("union.avsc", price(["null", "float"])))
    desk.send(*[written(longs, {**ORDER, "price": number}, wire) for number in (1, 2, 3)])
    desk.send(*[written(union, {**ORDER, "price": number / 2}, wire) for number in (1, 2)])
    desk.send(Codec(wire).encode(FOUR))
    found = desk.consume("--writer-schema", str(longs), "--writer-schema", str(union))
    assert found == (6, 0, "1.9167")  # 11.5 in all


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (price("double"), "double does not promote to float"),
        (record(ID, PRICE), "'product' is not there, and has no default"),
        ([record(*FIELDS)], "a list of schemas"),
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("command", [["consume"], ["dlq", "list"], ["dlq", "show", "0:0"], ["dlq", "replay"]])
def test_a_writer_schema_that_will_not_do_is_one_line(command: list[str], schema: Any, told: str, desk: Desk) -> None:
    """A writer schema that can never be read ends each command with status 2 and one line: its file, and why."""
    file = desk.file("writer.avsc", schema)
    status, out, err = desk.run(*command, "--writer-schema", file)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert file in err
    assert told in err


def test_the_extra_is_named_where_it_is_missing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client of a registry, one line says what to install."""
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)
    status, _, err = desk.run("consume", "--schema-registry", "http://localhost:8081")
    assert (status, err.count("\n")) == (1, 1)
    assert "orderkit[registry]" in err


def test_dead_letters_with_bytes_are_shown(desk: Desk) -> None:
    """A field of bytes is text in JSON, a code point for each, as Avro has it."""
    file = desk.file("bytes.avsc", record(*FIELDS, BYTES))
    desk.send(*map(Codec().encode, NAMED))
    status, _, err = desk.run("consume", "--orders", "6", "--idle", "20", "--permanent-rate", "1")
    assert (status, err) == (0, "")
    status, out, _ = desk.run("dlq", "list", "--json", "--schema", file)
    letters = json.loads(out)["dead_letters"]
    assert {letter["order"]["note"] for letter in letters} == {"\u00ff"}
    place = f"{letters[0]['partition']}:{letters[0]['offset']}"
    assert "\u00ff" in desk.run("dlq", "show", place, "--schema", file)[1]
    assert json.loads(desk.run("dlq", "show", place, "--schema", file, "--json")[1])["order"]["note"] == "\u00ff"


def test_a_renamed_field_is_produced_and_read(desk: Desk) -> None:
    """A schema whose field has an order's field as its alias writes orders, and reads the kit's."""
    file = desk.file("renamed.avsc", record(ID, PRODUCT, {"name": "amount", "type": "float", "aliases": ["price"]}))
    assert desk.run("produce", "--orders", "3", "--rate", "0", "--schema", file)[0] == 0
    assert desk.run("produce", "--orders", "3", "--rate", "0")[0] == 0
    assert desk.consume("--schema", file)[:2] == (6, 0)
