"""The names and numbers that Kafka takes. The client ends the whole process over some that it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from orderkit.errors import UsageError

TOPIC_LENGTH = 249  # characters, as in Kafka's own `Topic.validate`: a topic is a folder, with a suffix
TEXT_LENGTH = 32_767  # bytes: what a string of Kafka's protocol can hold
PARTITIONS = 100_000  # what the client asks for at the most
MOST_AT_ONCE = 1_000_000  # records in one call of the client
PORTS = 65_535
FLAGS = {"topic": "--topic", "dead-letter topic": "--dlq-topic", "group": "--group", "retry topic": "--group"}


def check_text(what: str, value: object) -> str:
    """Hold a name against what the client can take: text, not empty, without a NUL, in at most 32,767 bytes.

    Args:
        what: the name is of.
        value: the name.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, str):
        raise UsageError(f"The {what} is {value!r:.60}, which is no text. Give its name.")
    if not value:
        raise UsageError(f"The {what} has an empty name. Give it one{_flag(what)}.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise UsageError(f"The {what} {value!r:.60} is no valid text. Give another name{_flag(what)}.") from None
    if "\0" in value or size > TEXT_LENGTH:
        fault = "has a NUL character in it" if "\0" in value else f"has {size} bytes; {TEXT_LENGTH} are the most"
        raise UsageError(f"The {what} {value!r:.60} {fault}. Give another name{_flag(what)}.")
    return value


def check_topic(value: object, what: str = "topic") -> str:
    """Hold a topic's name against Kafka's rules: letters, digits, `.`, `_` and `-`, at most 249, not `.` or `..`.

    Raises:
        UsageError: Kafka would not take it.
    """
    name = check_text(what, value)
    if len(name) > TOPIC_LENGTH:
        fault = f"has {len(name)} characters, and {TOPIC_LENGTH} are the most"
    elif name in {".", ".."}:
        fault = "is a name that Kafka does not allow"
    elif wrong := re.search(r"[^a-zA-Z0-9._-]", name):
        fault = f"has {wrong[0]!r} in it; Kafka allows ASCII letters, digits, '.', '_' and '-'"
    else:
        return name
    raise UsageError(f"The {what} {name!r:.60} {fault}. Give another name{_flag(what)}.")


def check_dead_letter_topic(value: object) -> str:
    """Hold a dead-letter topic's name against Kafka's rules for topics.

    Raises:
        UsageError: Kafka would not take it.
    """
    return check_topic(value, "dead-letter topic")


def check_group(value: object) -> str:
    """Hold a group's name against what Kafka and the client take: any text that is not empty.

    Raises:
        UsageError: it is none.
    """
    return check_text("group", value)


def check_count(what: str, value: object, least: int, most: int) -> int:
    """Hold a whole number against its limits.

    Raises:
        UsageError: it is none, or beyond them.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{what} is {value!r:.60}; it must be a whole number from {least} to {most}.")
    return value


def check_seconds(what: str, value: object) -> float:
    """Hold a time against what the client can wait.

    Raises:
        UsageError: it is no number, below 0, or longer than a day.
    """
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 86_400:
        raise UsageError(f"{what} is {value!r:.60}; it must be a number of seconds from 0 to 86400.")
    return value


def check_address(value: object) -> str:
    """Hold `host:port`, or several separated by commas, against what can be one; spaces about commas are left out.

    Raises:
        UsageError: it is no address.
    """
    address = re.sub(r"\s*,\s*", ",", value) if isinstance(value, str) else ""
    if not address or not all(map(_is_address, address.split(","))):
        raise UsageError(f"{value!r:.200} is not a Kafka address. Write HOST:PORT, as in localhost:9092.")
    return address


def _is_address(part: str) -> bool:
    found = re.fullmatch(r"(?:[^\s:,/\0\ud800-\udfff]+|\[[0-9a-fA-F:.%\w]+\]):(\d{1,5})", part, re.ASCII)
    return found is not None and int(found[1]) <= PORTS


def check_config(config: object) -> Mapping[str, object]:
    """Hold client settings against what the client can read: names and values that are text without a NUL.

    Raises:
        UsageError: one is not; it is named, its value is not shown, it may be a password.
    """
    if not isinstance(config, Mapping):
        raise UsageError(f"Client settings are {type(config).__name__}; give a dict of names and values.")
    for name, value in config.items():
        check_text("name of a client setting", name)
        if not isinstance(value, str | int | float) and not callable(value):
            raise UsageError(f"Client setting {name} is {type(value).__name__}; give text or a number.")
        if isinstance(value, str) and not _is_plain(value):
            raise UsageError(f"Client setting {name} has a character in it that no client takes. Write it anew.")
    return config


def _is_plain(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _flag(what: str) -> str:
    return f" with {FLAGS[what]}" if what in FLAGS else ""


def check_member(group: str, topic: str, dead_letters: str, instance: str | None, batch: int, slice: float) -> None:
    """Check what a member of a consumer group is made with: the client would not take all of it, and not say."""
    check_group(group)
    check_topic(topic)
    check_dead_letter_topic(dead_letters)
    check_text("instance", "none" if instance is None else instance)
    check_count("batch", batch, 1, MOST_AT_ONCE)
    check_seconds("slice", slice)
