"""Reading JSON that somebody else wrote."""

import json
from pathlib import Path
from typing import Any

from training.errors import DataError


def read_text(path: Path, kind: str) -> str:
    """The text of a UTF-8 file, without a byte order mark; ``kind`` names it in messages.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark before CSV
    except OSError as error:
        raise DataError(f"The {kind} file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(f"The {kind} file {path} is not UTF-8 text; save it as UTF-8.") from None


def parse_json(text: str) -> Any:
    """The data in a JSON text.

    Raises:
        DataError: the text is not JSON, or is nested too deeply; the message does not name the file.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"line {error.lineno}, column {error.colno} is not JSON: {error.msg}.") from None
    except RecursionError:
        raise DataError("the JSON is nested too deeply.") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"the JSON cannot be read: {error}.") from None
