"""Checks of what a program passes in, before anything is sent or changed.

An argument of a wrong type is a `TypeError`, any other that cannot be right a `ValueError`. The message names the
argument, the value, shortened, and what is expected. A check costs no more than reading the value: a number is never
written out before its size is known.
"""

from __future__ import annotations

import math
import operator
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

# An exact number. Floats are not exact, and raise TypeError.
Number: TypeAlias = Decimal | int | str
# Of pandas and numpy as well: a Timestamp is a datetime.
Time: TypeAlias = "int | datetime | np.datetime64"

# The server's limit of a name is a setting, which cannot be above this.
NAME_BYTES_MAX = 255
EXPONENT_MAX = 18
ABSENT = -(2**63)
# Earlier numbers, of the years 1970 to 1973, are times of now in a larger unit.
TIME_NS_MIN, TIME_NS_MAX = 10**17, 2**63 - 1
TIME = "an int of ns since the Unix epoch, 0 for none, or a datetime with a time zone"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN_MAX = 60
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,12})?")


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _SHOWN_MAX
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 4

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write out very long integers."""
        return f"an int of {x.bit_length()} bits" if x.bit_length() > 4 * _SHOWN_MAX else super().repr_int(x, level)

    def repr_bytes(self, x: bytes, _level: int) -> str:
        return repr(x) if len(x) <= _SHOWN_MAX else f"{x[:20]!r}... of {len(x)} bytes"


def shown(value: object) -> str:
    """A value for a message, shortened."""
    text = _Shown().repr(value)
    return text if len(text) <= 2 * _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def _wrong_type(name: str, value: object, expected: str) -> TypeError:
    kind = "" if value is None else f" is of the type {type(value).__name__}"
    return TypeError(f"{name}: {shown(value)}{kind}: expected {expected}")


def integer(name: str, value: object, least: int, most: int, what: str = "an int") -> int:
    """A whole number of a range, also one of numpy or of a subclass of int; a bool is none."""
    if isinstance(value, bool):
        raise _wrong_type(name, value, what)
    try:
        number = int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise _wrong_type(name, value, what) from None
    if not least <= number <= most:
        raise ValueError(f"{name}: {shown(number)} is out of range: expected {least} to {most}")
    return number


def exponent(name: str, value: object) -> int:
    """An exponent of prices or sizes."""
    return integer(name, value, -EXPONENT_MAX, EXPONENT_MAX, f"an int from {-EXPONENT_MAX} to {EXPONENT_MAX}")


def time_ns(name: str, value: object) -> int:
    """A time as ns since the Unix epoch: an int of these, 0 for none, a datetime or a Timestamp of pandas with a time
    zone, or a datetime64 of numpy, which is UTC."""
    if isinstance(value, datetime):
        number = _of_datetime(name, value)
    elif (type(value).__module__, type(value).__name__) == ("numpy", "datetime64"):
        number = _of_datetime64(name, value)
    else:
        return _epoch_ns(name, integer(name, value, 0, TIME_NS_MAX, TIME))
    if not 0 < number <= TIME_NS_MAX:
        raise ValueError(f"{name}: {value} is out of range: expected a time of the years 1970 to 2262")
    return number


def _epoch_ns(name: str, number: int) -> int:
    if 0 < number < TIME_NS_MIN:
        unit = "seconds" if number < 10**11 else "milliseconds" if number < 10**14 else "microseconds"
        raise ValueError(f"{name}: {number} looks like {unit}: expected {TIME}")
    return number


def _of_datetime(name: str, value: datetime) -> int:
    if value != value:
        raise ValueError(f"{name}: NaT is no time: expected {TIME}")
    if value.tzinfo is None:
        raise ValueError(f"{name}: {value} has no time zone: expected one, as datetime.now(timezone.utc) has")
    exact: int | None = getattr(value, "value", None)
    if exact is not None:
        # A Timestamp of pandas, which has nanoseconds.
        return int(exact)
    since = value - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def _of_datetime64(name: str, value: Any) -> int:
    if value != value:
        raise ValueError(f"{name}: NaT is no time: expected {TIME}")
    exact = value.astype("datetime64[ns]")
    if exact.astype(value.dtype) != value:
        raise ValueError(f"{name}: {value} is out of range: expected a time of the years 1970 to 2262")
    return int(exact.astype("int64"))


def seconds(name: str, value: object, *, zero: bool = False) -> float:
    """A finite number of seconds above 0, or from 0 on."""
    expected = f"seconds {'from 0 on' if zero else 'above 0'}"
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise _wrong_type(name, value, expected)
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"{name}: {shown(value)} is out of range: expected {expected}") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name}: {shown(value)} is out of range: expected {expected}")
    return number


def boolean(name: str, value: object) -> bool:
    """A bool, and nothing that is only true or false in a condition, such as a text."""
    if not isinstance(value, bool):
        raise _wrong_type(name, value, "True or False")
    return value


def text(name: str, value: object, expected: str = "a str") -> str:
    """A text."""
    if not isinstance(value, str):
        raise _wrong_type(name, value, expected)
    return _plain(value)


def _plain(value: str) -> str:
    """The characters of a text, also of a member of an enum, whose `str()` is its name."""
    return str.__str__(value)


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of some words or letters."""
    given = text(name, value, f"one of {', '.join(choices)}")
    if given not in choices:
        raise ValueError(f"{name}: unknown {shown(given)}: expected one of {', '.join(choices)}")
    return given


def some_of(name: str, value: object, choices: tuple[str, ...]) -> tuple[str, ...]:
    """Some words, at least one; each counts once."""
    expected = f"some of {', '.join(choices)}"
    given = items(name, value, f"a list with {expected}", 1000)
    chosen = tuple(dict.fromkeys(one_of(f"{name}[{at}]", one, choices) for at, one in enumerate(given)))
    if not chosen:
        raise ValueError(f"{name}: empty list: expected {expected}")
    return chosen


_SIDES = {"b": "B", "buy": "B", "s": "S", "sell": "S", "n": "N"}


def side(name: str, value: object) -> str:
    """The letter of an aggressor's side."""
    expected = "one of B or buy, S or sell, N for unknown"
    letter = _SIDES.get(text(name, value, expected).lower())
    if letter is None:
        raise ValueError(f"{name}: unknown {shown(value)}: expected {expected}")
    return letter


def headers(name: str, value: object) -> dict[str, str]:
    """HTTP headers: a mapping of texts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong_type(name, value, "a mapping of header names and values")
    checked: dict[str, str] = {}
    for key, one in value.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text(f"{name}: the name of a header", key)):
            raise ValueError(f"{name}: {shown(key)} is no name of a header: expected letters, digits and '-'")
        checked[key] = header_value(f"{name}[{key!r}]", one)
    return checked


def header_value(name: str, value: object) -> str:
    """The value of a header. The message does not have it: it may be a secret."""
    given = value if isinstance(value, str) else None
    if given is None:
        raise TypeError(f"{name}: a value of the type {type(value).__name__}: expected a str")
    wrong = next((at for at, letter in enumerate(given) if not (" " <= letter <= "~" or letter == "\t")), None)
    if wrong is not None:
        raise ValueError(f"{name}: the character {wrong} cannot be sent in a header: expected printable ASCII")
    return _plain(given)


def items(name: str, value: object, expected: str, most: int) -> Iterator[Any]:
    """The elements of a list or another iterable; a text or bytes are none, though they can be iterated over."""
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(value, Iterable):
        raise _wrong_type(name, value, expected)
    try:
        elements = iter(value)
    except TypeError:
        # An array without a dimension.
        raise _wrong_type(name, value, expected) from None
    for count, one in enumerate(elements):
        if count >= most:
            raise ValueError(f"{name}: more than {most} elements: expected at most {most}")
        yield one


# ---- names


_LETTERS = "visible characters other than *, and spaces only between them"
_PATTERN = f"a name of {_LETTERS}, or a pattern with one * at its end"
# Characters that show nothing: the property Default_Ignorable_Code_Point of Unicode.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def symbol(name: str, value: object) -> str:
    """The exact name of an instrument, by the grammar of docs/protocol.md."""
    return _name(name, text(name, value, "the name of an instrument"), 1, f"a name of {_LETTERS}")


def venue(name: str, value: object) -> str:
    """The name of a venue, or an empty text."""
    return _name(name, text(name, value, "the name of a venue"), 0, f"a name of {_LETTERS}, or an empty text")


def pattern(name: str, value: object) -> str:
    """A name, or the beginning of one, which may be empty or end with a space, and a `*` behind it."""
    given = text(name, value, _PATTERN)
    if not given.endswith("*"):
        return _name(name, given, 1, _PATTERN)
    stem = given[:-1]
    if stem.startswith(" "):
        raise ValueError(f"{name}: {shown(given)} begins with a space: expected {_PATTERN}")
    _name(name, stem.rstrip(" "), 0, _PATTERN)
    _length(name, given, 1)
    return given


def _length(name: str, given: str, least: int) -> None:
    size_bytes = len(given.encode("utf-8", "surrogatepass"))
    if not least <= size_bytes <= NAME_BYTES_MAX:
        raise ValueError(f"{name}: {shown(given)} has {size_bytes} bytes: expected {least} to {NAME_BYTES_MAX}")


def _name(name: str, given: str, least: int, expected: str) -> str:
    _length(name, given, least)
    wrong = next((letter for letter in given if letter != " " and not _is_visible(letter)), None)
    if wrong is not None:
        raise ValueError(f"{name}: {shown(given)} has {wrong!a}: expected {expected}")
    if given != given.strip(" "):
        raise ValueError(f"{name}: {shown(given)} begins or ends with a space: expected {expected}")
    return given


def _is_visible(letter: str) -> bool:
    if "!" <= letter <= "~":
        return letter != "*"
    # A surrogate is no character, and has no UTF-8.
    is_hidden = letter.isspace() or unicodedata.category(letter) in ("Cc", "Cs")
    return not (is_hidden or _IGNORABLE.match(letter))


# ---- exact numbers


def mantissa(value: object, exponent_: object, name: str = "value") -> int:
    """The mantissa of a value at an exponent, `ABSENT` for `None`. Raises `ValueError` if it would be rounded."""
    at = exponent("exponent", exponent_)
    if value is None:
        return ABSENT
    if isinstance(value, float):
        raise TypeError(f"{name}: {value!r} is a float, which is not exact: expected an int, a Decimal or a str")
    scaled = _of_decimal(name, value, at) if isinstance(value, (Decimal, str)) else _of_int(name, value, at)
    if abs(scaled) >= 2**63:
        raise _out_of_range(name, value, at)
    return scaled


def amount(name: str, value: object, exponent_: int, *, signed: bool = True) -> int:
    """The mantissa of a value that has to be there. A size has no sign."""
    if value is None:
        raise TypeError(f"{name}: None: expected an int, a Decimal or a str")
    return mantissa(value, exponent_, name) if signed else size(name, value, exponent_)


def size(name: str, value: object, exponent_: int) -> int:
    """The mantissa of a size: 0 or more, `ABSENT` for `None`."""
    scaled = mantissa(value, exponent_, name)
    if scaled < 0 and scaled != ABSENT:
        raise ValueError(f"{name}: {shown(value)} is negative: expected a size from 0 on")
    return scaled


def step(name: str, value: object, exponent_: int) -> int | None:
    """The mantissa of a tick or lot size: above 0, or `None`."""
    if value is None:
        return None
    scaled = mantissa(value, exponent_, name)
    if scaled <= 0:
        raise ValueError(f"{name}: {shown(value)} is out of range: expected a number above 0")
    return scaled


def _out_of_range(name: str, value: object, at: int) -> ValueError:
    return ValueError(f"{name}: {shown(value)} is out of range: expected a mantissa below 2**63 at the exponent {at}")


def _rounded(name: str, value: object, at: int) -> ValueError:
    hint = "; the exponent of a number with 2 decimals is -2" if at > 0 else ""
    return ValueError(f"{name}: {shown(value)} has too many decimals: expected a multiple of 10**{at}{hint}")


def _of_int(name: str, value: object, at: int) -> int:
    if isinstance(value, bool):
        raise _wrong_type(name, value, "an int, a Decimal or a str")
    try:
        number = int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise _wrong_type(name, value, "an int, a Decimal or a str") from None
    if at <= 0:
        return number * _power(-at)
    whole, rest = divmod(number, _power(at))
    if rest:
        raise _rounded(name, value, at)
    return whole


def _of_decimal(name: str, value: Decimal | str, at: int) -> int:
    """Compares the places of the first and the last digit before it computes with the number."""
    number = parsed(name, value)
    if number.is_zero():
        return 0
    if number.adjusted() - at > 19:
        raise _out_of_range(name, value, at)
    sign, digits, last = number.as_tuple()
    end = len(digits)
    while digits[end - 1] == 0:
        end -= 1
    shift = int(last) + len(digits) - end - at
    if shift < 0:
        raise _rounded(name, value, at)
    # At most 20 digits: the first is at most 19 places above the last that the exponent allows.
    whole = int("".join(map(str, digits[:end]))) * _power(shift)
    return -whole if sign else whole


def _power(of: int) -> int:
    power: int = 10**of
    return power


def parsed(name: str, value: Decimal | str) -> Decimal:
    """A finite number."""
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise ValueError(f"{name}: {shown(value)} is no finite number: expected a decimal number, as '61837.63'")
        try:
            return Decimal(value)
        except InvalidOperation:
            raise ValueError(f"{name}: {shown(value)} is out of range: expected a decimal number") from None
    if not value.is_finite():
        raise ValueError(f"{name}: {value} is not a finite number: expected an int, a Decimal or a str")
    return value
