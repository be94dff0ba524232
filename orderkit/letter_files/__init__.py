"""Dead letters in files: out of a topic and back, bit for bit, to be read, edited and kept."""

from orderkit.letter_files.columns import letters_frame
from orderkit.letter_files.exporting import Exported, export_letters
from orderkit.letter_files.importing import Import, Imported, open_letters, write_letters
from orderkit.letter_files.values import Values

__all__ = [
    "Exported",
    "Import",
    "Imported",
    "Values",
    "export_letters",
    "letters_frame",
    "open_letters",
    "write_letters",
]
