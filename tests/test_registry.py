"""A schema registry names the writers of orders in Confluent's framing."""

from __future__ import annotations

import json
import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import fastavro
import pytest

from orderkit.account.state import group_state
from orderkit.brokers import EmbeddedBroker
from orderkit.cli import main
from orderkit.dead_letters.payload import Payload
from orderkit.dead_letters.reader import DeadLetterRecord
from orderkit.errors import OrderkitError, UsageError
from orderkit.orders.avro import Codec, order_schema
from orderkit.orders.order import Order
from orderkit.orders.registry import Registry
from orderkit.replay.mending import Mender, Unmended
from orderkit.retry import Failure

HERE = all(find_spec(name) for name in ("authlib", "cachetools", "httpx2"))
needs_client = pytest.mark.skipif(not HERE, reason='without the extra: pip install "orderkit[registry]"')
ORDER: Order = {"orderId": "1", "product": "Dock", "price": 80.0}
FIELDS: list[dict[str, Any]] = json.loads(order_schema())["fields"]
COLOUR = {"type": "enum", "name": "shop.Colour", "symbols": ["RED", "BLUE"]}


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    """Make the schema of an order with these fields."""
    return {"type": "record", "name": "Order", "namespace": "shop", "fields": list(fields)}


COLOURED = record(*FIELDS, {"name": "colour", "type": "shop.Colour"})
IN_LONGS = record(*FIELDS[:2], {"name": "price", "type": "long"})
IN_DOUBLES = record(*FIELDS[:2], {"name": "price", "type": "double"})
SALE: dict[str, Any] = {
    "type": "record",
    "name": "Sale",
    "namespace": "shop",
    "fields": [
        {"name": "sku", "type": "long"},
        {"name": "customer", "type": {"type": "record", "name": "Customer",
                                      "fields": [{"name": "country", "type": "string"}]}},
        {"name": "proof", "type": "bytes", "default": ""},
    ],
}  # fmt: skip
SUBJECT = {"name": "shop.Colour", "subject": "colour", "version": 1}
SCHEMAS: dict[str, dict[str, Any]] = {
    "/schemas/ids/1": {"schema": order_schema()},
    "/schemas/ids/2": {"schema": json.dumps(IN_LONGS)},
    "/schemas/ids/3": {"schema": json.dumps(COLOURED), "references": [SUBJECT]},
    "/schemas/ids/4": {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"},
    "/schemas/ids/5": {"schema": json.dumps(IN_DOUBLES)},
    "/schemas/ids/6": {"schema": '"string"'},
    "/schemas/ids/10": {"schema": json.dumps(SALE)},
    "/subjects/colour/versions/1": {"subject": "colour", "id": 9, "version": 1, "schema": json.dumps(COLOUR)},
}


class Answers(BaseHTTPRequestHandler):
    """Answers as Confluent's registry does."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked[path] += 1  # type: ignore[attr-defined]
        found = SCHEMAS.get(path)
        body = json.dumps(found or {"error_code": 40403, "message": "Schema not found"}).encode()
        self.send_response(403 if path.endswith("/7") else 200 if found else 404)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """Give a registry at a port of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.asked = Counter()  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server: ThreadingHTTPServer) -> str:
    """Say where the registry is."""
    return f"http://127.0.0.1:{server.server_port}"


def framed(number: int, schema: dict[str, Any], order: dict[str, Any]) -> bytes:
    """Write an order in Confluent's framing."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema, {"shop.Colour": COLOUR}), order)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


WRITTEN = [
    framed(1, json.loads(order_schema()), {**ORDER}),
    framed(2, IN_LONGS, {**ORDER, "price": 80}),
    framed(3, COLOURED, {**ORDER, "colour": "BLUE"}),
]


@needs_client
def test_an_id_says_who_wrote_an_order(url: str, server: ThreadingHTTPServer) -> None:
    """Orders of several writers are read each with its own schema, and the registry is asked once for each id."""
    codec = Codec(registry=Registry(url))
    assert [codec.decode(value) for value in WRITTEN] == [ORDER] * 3
    assert codec.decode_batch(WRITTEN * 50) == [ORDER] * 150
    assert codec.decode_batch(WRITTEN[:1] * 50) == [ORDER] * 50
    assert set(server.asked.values()) == {1}  # type: ignore[attr-defined]


@needs_client
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (4, "PROTOBUF, not Avro"),
        (5, "double does not promote to float"),
        (6, "one record"),
        (99, "not known to the registry at 127.0.0.1"),
    ],
)
def test_an_id_that_leads_nowhere_is_poison(url: str, number: int, told: str) -> None:
    """An id that is unknown, or whose schema an order cannot be read with, makes poison that names the id."""
    value = framed(number, json.loads(order_schema()), {**ORDER})
    (found,) = Codec(registry=Registry(url)).decode_batch([value])
    assert isinstance(found, Failure)
    assert (found.reason, told in str(found), f"id {number}" in str(found)) == ("poison", True, True)


@needs_client
def test_a_registry_that_does_not_answer_stops_the_reader(url: str) -> None:
    """No order is to blame for a registry that refuses: one line says where it is, without its password."""
    codec = Codec(registry=Registry(url.replace("http://", "http://me:secret@")))
    with pytest.raises(OrderkitError) as caught:
        codec.decode_batch([framed(7, IN_LONGS, {**ORDER, "price": 80})])
    assert "registry at 127.0.0.1" in str(caught.value)
    assert "--schema-registry" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@needs_client
def test_a_mended_order_is_not_written_under_another_schema_s_id(url: str) -> None:
    """An order that would be read with another schema than it is written with stays unmended."""
    codec = Codec(registry=Registry(url))
    for value in WRITTEN:
        letter = DeadLetterRecord("dlq", 0, 0, 0, None, value, [], {})
        mender = Mender(lambda order, _: {**order, "price": 1.0} if order else None, reader=codec)
        if value is WRITTEN[0]:
            assert codec.decode(mender.mend(letter, Payload("order", codec.decode(value)))) == {**ORDER, "price": 1.0}
        else:
            with pytest.raises(Unmended, match="which schema wrote it"):
                mender.mend(letter, Payload("order", codec.decode(value)))


@needs_client
def test_a_registry_goes_to_other_processes(url: str) -> None:
    """A codec with a registry can be sent to another process, which asks for itself."""
    codec = pickle.loads(pickle.dumps(Codec(registry=Registry(url))))
    assert codec.decode(WRITTEN[1]) == ORDER


@needs_client
@pytest.mark.parametrize("address", ["localhost:8081", "", "ftp://here", "http://", "http://here:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """What is no address of a registry is refused with an example."""
    with pytest.raises(UsageError, match=r"http://localhost:8081"):
        Registry(address)


@needs_client
def test_the_command_line_asks_the_registry(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`consume --schema-registry` averages orders of several writers; one that does not answer keeps the offset."""
    with EmbeddedBroker() as broker:
        producer = broker.connection.producer()
        for value in WRITTEN:
            producer.produce("orders", value, partition=0)
        assert producer.flush(10) == 0
        where = ["--bootstrap-server", broker.bootstrap, "--idle", "20", "--schema-registry", url]
        for more, status in (["--orders", "3", "--json"], 0), ([], 1):
            with pytest.raises(SystemExit) as ended:
                main(["consume", *where, *more])
            assert ended.value.code == status
            told = capsys.readouterr()
            if more:
                assert (json.loads(told.out)["averaged"], json.loads(told.out)["average"], told.err) == (
                    3,
                    "80.0000",
                    "",
                )
                producer.produce("orders", framed(7, IN_LONGS, {**ORDER, "price": 1}), partition=0)
                assert producer.flush(10) == 0
            else:
                assert told.err.count("\n") == 1
                assert f"registry at {url[7:]}" in told.err
                assert group_state(broker.connection, "orderkit", "orders").offsets[0] == 3


def test_without_its_extra_the_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client's libraries are missing, one line says what to install."""
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)
    with pytest.raises(OrderkitError, match=r"orderkit\[registry\]"):
        Registry("http://localhost:8081")


def test_without_a_registry_an_id_says_nothing(tmp_path: Path) -> None:
    """Whatever its id, an order in Confluent's framing is read with the writer that makes an order of all its bytes."""
    path = tmp_path / "longs.avsc"
    path.write_text(json.dumps(IN_LONGS))
    codec = Codec(writers=[path])
    assert [codec.decode(b"\0\0\0\0\x63" + value[5:]) for value in WRITTEN[:2]] == [ORDER] * 2
