"""Dead letters: written with their story and an acknowledgement, read back whoever wrote them, whatever they are.

Key, value and headers of the record stay byte for byte; the story goes into added headers, as UTF-8 text.
"""

from orderkit.dead_letters.dialects import DIALECTS, Dialect
from orderkit.dead_letters.filters import LetterFilter, select
from orderkit.dead_letters.frame import dead_letter_frame
from orderkit.dead_letters.plans import add_dialect
from orderkit.dead_letters.reader import DeadLetterRecord, read_batches, read_dead_letters, read_one, read_topic
from orderkit.dead_letters.story import MESSAGE_LIMIT, PREFIX, WRITABLE, Headers, header_list, story
from orderkit.dead_letters.where import Where
from orderkit.dead_letters.writer import DLQ_CONFIG, PROBE, DeadLetterWriter

__all__ = [
    "DIALECTS",
    "DLQ_CONFIG",
    "MESSAGE_LIMIT",
    "PREFIX",
    "PROBE",
    "WRITABLE",
    "DeadLetterRecord",
    "DeadLetterWriter",
    "Dialect",
    "Headers",
    "LetterFilter",
    "Where",
    "add_dialect",
    "dead_letter_frame",
    "header_list",
    "read_batches",
    "read_dead_letters",
    "read_one",
    "read_topic",
    "select",
    "story",
]
