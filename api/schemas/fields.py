"""Strict fields: a number is not accepted as text, and text may not contain invisible characters."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from flask_smorest.fields import Upload
from marshmallow import Schema as _Schema
from marshmallow import ValidationError, fields, validate
from marshmallow.validate import Length, Range
from werkzeug.datastructures import FileStorage

from api import context
from shared import texts
from shared.captions import COMMA
from shared.outside.db import utcnow
from shared.texts import COMMAS, UNSEEN, UNSEEN_BEYOND

MAX_INTEGER = 2**53 - 1  # the largest that every JSON reader represents exactly (RFC 8259, 6)
METADATA_PAIRS = 16
NFC_SHRINKS = 4  # letters of a text that become one in normal form C: a letter and three accents


class Schema(_Schema):
    """A schema of requests, which refuses unknown fields."""

    largest_file = "max_upload_bytes"  # of a form: the setting that bounds its file

    class Meta:
        unknown = "raise"


class Answer(_Schema):
    """A schema of answers. In openapi.yaml it allows unknown fields, because later versions may add some."""

    class Meta:
        unknown = "include"


class Query(Schema):
    """Query parameters that may include filters by metadata; see Parser.load_querystring."""

    metadata_filter = False


class List(fields.List):
    """A list in a request. Its length is checked before its items are loaded, not after it as in marshmallow."""

    def __init__(self, item: fields.Field[Any], low: int, high: int, **kwargs: Any):
        self.length = Length(low or None, high)
        super().__init__(item, validate=self.length, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        self.length(value)
        return super()._deserialize(value, attr, data, **kwargs)


class Dict(fields.Dict):
    """A dictionary in a request. Its length is checked before its items are loaded, as for lists."""

    def __init__(self, keys: fields.Field[Any], values: fields.Field[Any], low: int, high: int, **kwargs: Any):
        self.length = Length(low or None, high)
        super().__init__(keys, values, validate=self.length, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        self.length(value)
        return super()._deserialize(value, attr, data, **kwargs)


class File(Upload):
    """A file in a form. Text is refused; clients send it when the `@` before the file's name is missing."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> FileStorage:
        if not isinstance(value, FileStorage):
            raise ValidationError(f"must be a file, not text; with curl: -F {attr}=@PATH")
        return value


class Base64Picture(fields.String):
    """A small picture in JSON, as base64 or as a data URL (RFC 2397) with base64. Loaded as bytes, not yet decoded."""

    def __init__(self, **kwargs: Any):
        kwargs["metadata"] = {"format": "byte", **kwargs.get("metadata", {})}
        super().__init__(validate=Length(1), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        if text.startswith("data:"):
            text = text.partition(";base64,")[2]
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise ValidationError("must be a picture in base64, or a data URL with base64") from None


class CommaTags(fields.String):
    """Tags in a form, separated by commas of any script."""

    length = Length(max=5_000)

    def __init__(self, **kwargs: Any):
        super().__init__(validate=self.length, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        self.length(text)
        tags = [tag.strip() for tag in COMMA.split(text)]
        return Tags().deserialize([tag for tag in tags if tag])

    def _validate(self, value: Any) -> None:
        """Do nothing: the tags have been validated one by one."""


class _Pattern(validate.Regexp):
    """The whole text must match. (`$` alone would also match before a newline at the end.)"""

    def __call__(self, value: Any) -> Any:
        if not self.regex.fullmatch(value):
            raise ValidationError(self._format_error(value))
        return value


class _Printable(_Pattern):
    """Text without invisible characters and without those that a database refuses."""

    def __init__(self, beside: str = ""):
        super().__init__(rf"^[^{UNSEEN}{beside}]*$")
        self._refused = re.compile(rf"[{UNSEEN}{UNSEEN_BEYOND}{beside}\ud800-\udfff]")

    def __call__(self, value: Any) -> Any:
        if found := self._refused.search(value):
            raise ValidationError(f"must not contain {texts.name_of(found[0])}; remove it")
        return value


class _Normal(fields.String):
    """Text in Unicode normal form C, so that texts that look the same are equal.

    Text that is far too long in any form is refused before anything else looks at it.
    """

    def __init__(self, low: int, high: int, *validators: Callable[[Any], Any], **kwargs: Any):
        self.length = Length(low or None, high)
        self.most = NFC_SHRINKS * high
        super().__init__(validate=[self.length, *validators], **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        if len(text) > self.most:
            self.length(text)
        return texts.normal(text)


class Name(_Normal):
    """A name, which is not blank."""

    def __init__(self, max_length: int, **kwargs: Any):
        super().__init__(1, max_length, _Printable(), _readable, **kwargs)


class Text(_Normal):
    """Printable text of a bounded length."""

    def __init__(self, max_length: int, *, min_length: int = 1, **kwargs: Any):
        super().__init__(min_length, max_length, _Printable(), **kwargs)


class Tag(_Normal):
    """One tag. It contains no commas, because they separate tags."""

    def __init__(self, **kwargs: Any):
        super().__init__(1, 100, _Printable(COMMAS), _readable, **kwargs)


def _readable(tag: str) -> None:
    if texts.is_blank(tag.replace("_", " ")):
        raise ValidationError("must contain at least one word")


class StrictInteger(fields.Integer):
    """A JSON integer. The text `"5"` is refused."""

    def __init__(self, low: int = -MAX_INTEGER, high: int = MAX_INTEGER, **kwargs: Any):
        super().__init__(strict=True, validate=Range(low, high), **kwargs)


class Timestamp(fields.AwareDateTime):
    """A time with a time zone. The default is UTC."""

    def __init__(self, **kwargs: Any):
        within = Range(datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
        super().__init__(format="iso", default_timezone=UTC, validate=within, **kwargs)


class QueryInteger(fields.Integer):
    """An integer in a query string, where it arrives as text."""

    def __init__(self, low: int, high: int, **kwargs: Any):
        super().__init__(validate=Range(low, high), **kwargs)


class StrictFloat(fields.Float):
    """A JSON number. The text `"5"` is refused."""

    def __init__(self, low: float | None = None, high: float | None = None, **kwargs: Any):
        super().__init__(validate=Range(low, high), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class StrictBoolean(fields.Boolean):
    """JSON true or false. Other values are refused."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Tags(List):
    """A list of tags."""

    def __init__(self, max_length: int = 100, *, min_length: int = 0, **kwargs: Any):
        super().__init__(Tag(), min_length, max_length, **kwargs)


class Metadata(Dict):
    """The client's own ids: a few pairs of text. Lists can be filtered by them; the service does not use them."""

    def __init__(self, **kwargs: Any):
        super().__init__(
            fields.String(validate=[Length(1, 64), _Pattern("^[A-Za-z0-9_.-]+$")]),
            Text(512, min_length=0),
            0,
            METADATA_PAIRS,
            metadata={"description": "Pairs of your own, such as ids of your pipeline."},
            **kwargs,
        )


class IdField(fields.String):
    def __init__(self, **kwargs: Any):
        super().__init__(validate=_Pattern("^[a-z]{3}_[0-9a-hjkmnp-tv-z]{26}$"), **kwargs)


class Links(fields.Field):
    """URLs of a resource and of those that belong to it, so that clients need not build them."""

    def __init__(self, /, **templates: str):
        super().__init__(dump_only=True)
        self.templates = {name: "{root}" + template for name, template in templates.items()}
        self.metadata = {
            "type": "object",
            "properties": {name: {"type": "string", "format": "uri"} for name in templates},
        }

    def get_value(self, obj: Any, attr: str, accessor: Any = None, default: Any = None) -> Any:
        return obj

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, str]:
        it = SimpleNamespace(**value) if isinstance(value, dict) else value
        root = address("")
        return {
            name: template.format(root=root, it=it)
            for name, template in self.templates.items()
            if all(getattr(it, part) is not None for part in re.findall(r"\{it\.(\w+)\}", template))
        }


def address(path: str) -> str:
    """The URL of a path of this service."""
    return context.runtime().settings.public_url.rstrip("/") + path


class Download(fields.String):
    """A presigned link to the object of a row, for callers with the scope `artifacts:read`."""

    def __init__(self) -> None:
        super().__init__(
            dump_only=True,
            allow_none=True,
            metadata={
                "format": "uri",
                "description": "A link that needs no key. Null without the scope `artifacts:read`.",
            },
        )

    def get_value(self, obj: Any, attr: str, accessor: Any = None, default: Any = None) -> Any:
        return obj

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if not context.allowed("artifacts:read"):
            return None
        key, filename = (value["key"], value["filename"]) if isinstance(value, dict) else (value.key, f"{value.id}.png")
        runtime = context.runtime()
        return runtime.storage.presigned_get(key, timedelta(seconds=runtime.settings.download_seconds), filename)


class DownloadExpiry(fields.DateTime):
    """The time until which a download link of this answer works."""

    def __init__(self) -> None:
        super().__init__(
            dump_only=True,
            format="iso",
            metadata={"description": "Until when the link works. Read the resource again for a new link."},
        )

    def get_value(self, obj: Any, attr: str, accessor: Any = None, default: Any = None) -> Any:
        return utcnow() + timedelta(seconds=context.runtime().settings.download_seconds)
