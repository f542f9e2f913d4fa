"""The cost of the most expensive request body: `python -m benchmarks.bodies` prints one JSON line.

Each route with a JSON body gets bodies of the largest size that is allowed. In each, one field is filled with as many
items, names, brackets or letters as fit; another one is the largest body that the schema accepts. The figure is CPU
time of the whole process, which does not depend on other load. The slowest bodies are listed on stderr.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from flask import Flask
from flask.testing import FlaskClient
from marshmallow import Schema, fields
from marshmallow.validate import Length, Range

from api import document
from api.app import create_app
from api.examples import BODIES, IDS
from api.schemas.choices import Choice
from api.schemas.fields import IdField
from benchmarks.figure import figure
from shared import catalog, projects, users
from shared.admin import upgrade
from shared.models import Image, Lora, Round, User
from shared.runtime import Runtime
from shared.settings import Settings

SECRET = "a secret for benchmarks, long enough"  # noqa: S105
SIZE = Settings.max_body_bytes - 5_000  # bytes of the filled field; the rest of the body takes the others
GOAL = 0.2
TRIES = 3
LISTED = 5
MANY = 10**6
CANDIDATES = 1_000

Place = tuple[str | int, ...]  # of a field in a body


def fillings() -> Iterator[tuple[str, str]]:
    """JSON values of that size, of each sort, with their names."""
    for name, item in {"zeros": "0", "texts": '""', "nulls": "null", "lists": "[]", "objects": "{}"}.items():
        yield f"a list of {name}", f"[{','.join([item] * (SIZE // (len(item) + 1)))}]"
    yield "10,000 brackets", f"[{','.join(['[]'] * 9_990)}]"
    names = ",".join(f'"{number:x}":0' for number in range(SIZE // 9))
    yield "an object of many names", f"{{{names}}}"
    yield "brackets", "[" * 900 + "]" * 900
    for name, letter in {"letters": "a", "commas": ",", "spaces": " ", "accents": "é", "braces": "{"}.items():
        yield f"a text of {name}", f'"{letter * (SIZE // len(letter.encode()))}"'
    yield "digits", "9" * 4_000


def filled(schema: Schema, body: Any) -> Iterator[tuple[str, str]]:
    """The body as JSON with each field filled in turn, then the largest body that the schema accepts."""
    mark = "the place of the filling"
    for place in places(schema):
        text = json.dumps(put(body, place, mark))
        for name, filling in fillings():
            yield f"{'.'.join(map(str, place))}: {name}", text.replace(json.dumps(mark), filling)
    for name, filling in fillings():
        yield name, filling
    for letter in "aé,":
        yield f"the largest, of {letter!r}", json.dumps(largest_of(schema, letter), ensure_ascii=False)


def places(schema: Schema) -> list[Place]:
    """The fields to fill: each list, dictionary and nested object, and one field of each other type."""
    found: dict[object, Place] = {}
    for place, field in _fields(schema, ()):
        is_container = isinstance(field, fields.List | fields.Dict | fields.Nested)
        found.setdefault(place if is_container else type(field), place)
    return list(found.values())


def _fields(schema: Schema, above: Place) -> Iterator[tuple[Place, fields.Field[Any]]]:
    for name, field in schema.fields.items():
        yield (*above, name), field
        inner = field.inner if isinstance(field, fields.List) else field
        if isinstance(inner, fields.Nested):
            yield from _fields(inner.schema, (*above, name, 0) if inner is not field else (*above, name))


def put(body: Any, place: Place, value: Any) -> Any:
    """The body with this value at a place. Missing parents are created."""
    if not place:
        return value
    if place[0] == 0:
        return [put({}, place[1:], value)]
    known = body if isinstance(body, dict) else {}
    return known | {str(place[0]): put(known.get(str(place[0])), place[1:], value)}


def largest_of(schema: Schema, letter: str) -> dict[str, Any]:
    return {name: largest(field, letter) for name, field in schema.fields.items()}


def largest(field: fields.Field[Any], letter: str) -> Any:
    """The largest value that a field accepts. Texts repeat this letter."""
    length = next((each for each in field.validators if isinstance(each, Length)), Length(max=1))
    if isinstance(field, fields.Nested):
        return largest_of(field.schema, letter)
    if isinstance(field, fields.List):
        return [largest(field.inner, letter) for _ in range(length.max or 1)]
    if isinstance(field, fields.Dict) and field.value_field is not None:
        names = list(field.key_field.validators[0].choices) if isinstance(field.key_field, Choice) else None  # type: ignore[attr-defined]
        keys = names or [f"{number:064}" for number in range(length.max or 1)]
        return {key: largest(field.value_field, letter) for key in keys}
    if isinstance(field, Choice):
        return max(map(str, field.words), key=len)
    if isinstance(field, IdField):
        return IDS["image_id"]
    if isinstance(field, fields.Boolean):
        return True
    if isinstance(field, fields.Number):
        bounds = next((each for each in field.validators if isinstance(each, Range)), None)
        return 1 if bounds is None or bounds.max is None else bounds.max
    return letter * (length.max or 1)


class Service:
    """The application in this process, with rows for the routes to act on."""

    def __init__(self, folder: Path):
        url = f"sqlite:///{folder}/bootlora.db"
        upgrade(url)
        self.runtime = Runtime.from_settings(
            Settings(
                database_url=url,
                broker_url="memory://",
                storage_url=folder.as_uri(),
                secret_key=SECRET,
                requests_per_minute=MANY,
                submits_per_minute=MANY,
                max_queued_jobs=MANY,
            )
        )
        self.app: Flask = create_app(self.runtime)
        self.client: FlaskClient = self.app.test_client()
        with self.runtime.db.transaction() as session:
            user = users.create(session, "bench", "admin")
            _, self.key = users.create_key(session, user, SECRET, name="bench")
            self.things = scene(session, user)

    def seconds(self, method: str, path: str, body: str) -> float:
        """CPU seconds of this process for one request."""
        headers = {"Authorization": f"Bearer {self.key}", "If-Match": "*", "Idempotency-Key": f"k{time.time_ns()}"}
        began = time.process_time()
        self.client.open(path, method=method, data=body.encode(), content_type="application/json", headers=headers)
        return time.process_time() - began

    def routes(self) -> Iterator[tuple[str, str, str, Schema]]:
        """Name, method, address and schema of each route with a JSON body."""
        operations = {
            operation["operationId"]: (method.upper(), path)
            for path, item in document.document(self.app)["paths"].items()
            for method, operation in item.items()
            if isinstance(operation, dict)
        }
        for name, view in self.app.view_functions.items():
            for parameter in getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", []):
                if parameter["in"] == "json":
                    method, path = operations[view.__name__]
                    yield name, method, path.format(**self.things), parameter["schema"]


def scene(session: Any, user: User) -> dict[str, Any]:
    """A project with a round of many candidates."""
    given = {
        "name": "Eiei",
        "trigger_word": "eiei21girl",
        "subject_tags": ["1girl", "solo"],
        "feature_tags": ["fox ears"],
        "base_model": "chibi",
        "curation": "manual",
    }
    project = projects.create(session, user, given, catalog.base_models())
    project.state = "running"
    plan = project.plan.rounds[0]
    round_ = Round(project=project, number=1, kind=plan.kind, target=plan.target, plan=plan, state="curating")
    session.add(round_)
    session.flush()
    file = {"key": "x", "sha256": "0" * 64, "size_bytes": 1, "filename": "x.safetensors"}
    trained = {"rank": 8, "alpha": 8.0, "train_steps": 1, "metrics": {}, "job_id": IDS["job_id"]}
    named = {"kind": "style", "trigger_word": project.trigger_word, "base_model": "chibi"}
    lora = Lora(project_id=project.id, round_id=round_.id, files={"kohya": file, "diffusers": file}, **trained, **named)
    session.add(lora)
    session.flush()
    round_.lora_id = lora.id
    image = {"project_id": project.id, "round_id": round_.id, "role": "candidate", "source": "generated", "tags": []}
    stored = {"sha256": "0" * 64, "size_bytes": 1, "width": 128, "height": 128, "decision": "pending"}
    images = [Image(key=f"candidate {number}", **image, **stored) for number in range(CANDIDATES)]
    session.add_all(images)
    session.flush()
    things = {"project_id": project.id, "number": 1, "image_id": images[0].id, "user_id": user.id}
    return {**IDS, **things}


def worst_body_seconds() -> dict[str, Any]:
    """CPU seconds of the most expensive body of all routes."""
    costs: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        for name, method, path, schema in service.routes():
            for sort, body in filled(schema, BODIES.get(name.rpartition(".")[2], {})):
                cost = service.seconds(method, path, body)
                if cost > GOAL / 4:
                    cost = min(cost, *(service.seconds(method, path, body) for _ in range(TRIES - 1)))
                costs.append((cost, f"{name} with {sort}"))
                if cost > GOAL:
                    print(f"{cost:.3f} s: {name} with {sort}", file=sys.stderr, flush=True)
        service.runtime.close()
    costs.sort(reverse=True)
    for cost, about in costs[:LISTED]:
        print(f"{cost:.3f} s: {about}", file=sys.stderr)
    about = f"{len(costs)} bodies of up to {Settings.max_body_bytes // 1000} kB; the worst: {costs[0][1]}"
    seconds = [cost for cost, _ in costs]
    return figure("worst_body_seconds", seconds[0], goal=GOAL, better="lower", runs=seconds, about=about)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(json.dumps(worst_body_seconds()), flush=True)
