"""The rules for false negatives and which margins they take; kept light, the command line imports it.

What the rules do with a margin: :mod:`unime_kedro.mining.filters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from ..errors import ConfigurationError

Rule = Literal["absolute", "relative", "percentage", "none"]

RULES: tuple[Rule, ...] = get_args(Rule)

#: margin of a rule when none is given: the paper's, NV-Retriever's best, and for ``relative`` the same as that
DEFAULT_MARGINS: Mapping[str, float] = MappingProxyType(
    {"absolute": 0.01, "relative": 0.05, "percentage": 0.95, "none": 0.0}
)


def check_margin(rule: str, margin: float) -> None:
    """Raise unless ``margin`` has a meaning for ``rule``.

    Raises:
        ConfigurationError: Unknown rule, or a margin outside the rule's range (NaN included).
    """
    if rule not in RULES:
        raise ConfigurationError(f"unknown false-negative rule {rule!r}; expected one of {', '.join(RULES)}")
    valid = {
        "absolute": (0 <= margin <= 1, "0 <= margin <= 1 (a distance between scores; the paper has 0.01)"),
        "relative": (0 <= margin < 1, "0 <= margin < 1 (share below the positive's score, for example 0.05)"),
        "percentage": (0 < margin <= 1, "0 < margin <= 1 (share of the positive's score, for example 0.95)"),
        "none": (True, ""),
    }
    fits, expected = valid[rule]
    if not fits:
        raise ConfigurationError(f"margin {margin} is out of range for rule {rule!r}: expected {expected}")
