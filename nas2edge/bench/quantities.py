"""Quantities of a check as people write them: shapes, and percentages.

>>> parse_shape("1x3x224x224")
(1, 3, 224, 224)
>>> parse_share("5%")
0.05
"""

from __future__ import annotations

import math
import re

from nas2edge.errors import UnitError


def parse_shape(text: str) -> tuple[int, ...]:
    """Reads a shape such as 1x3x224x224.

    Raises:
        UnitError: It is no list of positive numbers with x between them.
    """
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", text):
        raise UnitError(f"{text!r} is no shape; expected positive numbers with x between them, such as 1x3x224x224")
    return tuple(map(int, text.split("x")))


def parse_share(text: str) -> float:
    """Reads a percentage such as 5% and returns the fraction 0.05.

    Raises:
        UnitError: It is no percentage of 0 or more.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*%\s*", text)
    if match is None:
        raise UnitError(f"{text!r} is no percentage; expected 0 or more with its sign, such as 5%")
    return float(match.group(1)) / 100.0


def parse_growth(text: str) -> float:
    """Reads a percentage, or "none" for no limit, which is infinity.

    Raises:
        UnitError: It is neither.
    """
    return math.inf if text == "none" else parse_share(text)
