"""What common licences of base models allow: a hint from their names, which a row overrides. No legal advice."""

from __future__ import annotations

import re

from shared.catalog.bases import UNKNOWN

# (words of the licence's name, commercial use, hosting); the first that is found counts.
USES = (
    (
        r"non-?\s?commercial|cc[- ]by[- ]nc|research[- ]only|noobai|circlestone"
        r"|\b(?:no|not for|forbids|prohibits) commercial|commercial use (?:is )?(?:not|forbidden|prohibited)",
        "no",
        "no",
    ),
    (r"open ?rail", "yes", "yes"),
    (r"apache|\bmit\b|\bbsd\b|cc0|cc[- ]by[- ](?:4|sa)", "yes", "yes"),
    (r"pony", "ask", "no"),
    (r"fair[- ]ai[- ]public", "ask", "yes"),
    (r"stability.*community|stabilityai.*community", "ask", "yes"),
)
# The licence that the first model of a lineage came with.
OF_LINEAGE = {
    "animagine": "CreativeML Open RAIL++-M",
    "illustrious": "Fair AI Public License 1.0-SD",
    "noobai": "Fair AI Public License 1.0-SD with the NoobAI terms: no commercial use of the model",
    "pony": "Fair AI Public License 1.0-SD with the Pony terms: no paid inference",
}


def uses(license: str) -> tuple[str, str]:
    """Commercial use and hosting, by the name of a licence."""
    for words, commercial_use, hosting in USES:
        if re.search(words, license, re.IGNORECASE):
            return commercial_use, hosting
    return UNKNOWN, UNKNOWN
