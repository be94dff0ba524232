"""Dead letters: written with their story and an acknowledgement, and read back.

Key, value and headers of the record stay byte for byte; the story goes into added headers, as UTF-8 text.
"""

from orderkit.dead_letters.reader import DeadLetterRecord, read_dead_letters, read_topic
from orderkit.dead_letters.story import MESSAGE_LIMIT, PREFIX, Headers, header_list, story
from orderkit.dead_letters.writer import DLQ_CONFIG, PROBE, DeadLetterWriter

__all__ = [
    "DLQ_CONFIG",
    "MESSAGE_LIMIT",
    "PREFIX",
    "PROBE",
    "DeadLetterRecord",
    "DeadLetterWriter",
    "Headers",
    "header_list",
    "read_dead_letters",
    "read_topic",
    "story",
]
