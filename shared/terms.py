"""What the licence of a base model allows, and what a project is for. A hint, no legal advice."""

from __future__ import annotations

from shared.catalog import BaseModel
from shared.catalog.kinds import Terms
from shared.errors import Invalid
from shared.triggers import ProjectWarning

COMMERCIAL = "commercial"


def of(base: BaseModel) -> Terms:
    """What LoRAs and exports inherit of a base model."""
    return Terms(
        license=base.license, commercial_use=base.commercial_use, hosting=base.hosting, base_sha256=base.sha256
    )


def check(intended_use: str | None, base: BaseModel) -> None:
    """Refuse commercial use of a base model whose licence forbids it.

    Raises:
        Invalid: `license_forbids`.
    """
    if intended_use == COMMERCIAL and base.commercial_use == "no":
        raise Invalid(
            f"the licence of the base model {base.name!r} ({base.license or 'not named'}) forbids commercial use; "
            "choose another base model",
            code="license_forbids",
            errors=[{"pointer": "/base_model", "detail": "its licence forbids commercial use"}],
        )


def warnings(intended_use: str | None, base: BaseModel | None) -> list[ProjectWarning]:
    """Warnings about a project for commercial use whose base model may not allow it."""
    if intended_use != COMMERCIAL or base is None or base.commercial_use == "yes":
        return []
    if base.commercial_use == "no":
        return [_warning("license_forbids", f"the licence of {base.name!r} forbids commercial use: {base.license}")]
    if base.commercial_use == "ask":
        detail = f"{base.name!r} allows commercial use only under conditions of its licence: {base.license}; read it"
        return [_warning("license_asks", detail)]
    detail = f"it is not known whether {base.name!r} may be used commercially; find its licence and read it"
    return [_warning("license_unknown", detail)]


def _warning(code: str, detail: str) -> ProjectWarning:
    return ProjectWarning(code=code, pointer="/base_model", detail=detail)
