"""Answers to the exercises of 01_an_order_in_bytes."""


def order_length(order_id, product):
    sizes = [len(text.encode()) for text in (order_id, product)]
    return sum(sizes) + sum(1 if n < 64 else 2 for n in sizes) + 4


def wire_format(value):
    if value.startswith(b"\xc3\x01"):
        return "single"
    return "confluent" if value.startswith(b"\x00") else "raw"
