"""The error of a file that breaks its format, and text from a file made safe for a message."""


class FormatError(ValueError):
    """A file breaks the format that its name promises: the fault, and the remedy. `code` identifies the cause."""

    def __init__(self, code: str, fault: str, remedy: str = "save the file again") -> None:
        super().__init__(f"{fault}; {remedy}.")
        self.code, self.fault, self.remedy = code, fault, remedy


def printable(text: str) -> str:
    """Text from a file, shortened and safe to show in a message: control characters and lone surrogates are escaped."""
    short = text if len(text) <= 120 else f"{text[:117]}..."
    return short if short.isprintable() else ascii(short)


def storable(text: str) -> bool:
    """Whether a database and a page can hold the text: PostgreSQL takes no NUL, UTF-8 no lone surrogate."""
    return not any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in text)
