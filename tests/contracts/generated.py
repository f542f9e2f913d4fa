"""A whole project by the client that was made from openapi.yaml; run by a Python that knows nothing of the service.

What it is given: the address of the service, a key, a picture. What it prints last: what it came to, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import zipfile
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from bootlora_client import AuthenticatedClient
from bootlora_client.api.datasets import import_dataset
from bootlora_client.api.events import list_events
from bootlora_client.api.images import crop_image, get_image, put_back_image, upload_image
from bootlora_client.api.jobs import get_job, list_job_files
from bootlora_client.api.loras import list_loras
from bootlora_client.api.projects import create_project, generate_pictures, get_project, start_project
from bootlora_client.api.rounds import add_round, decide_candidates, finish_round, get_round, list_candidates
from bootlora_client.models import (
    CropMode,
    Crops,
    Curation,
    Decisions,
    Finish,
    Framing,
    GenerateParams,
    Generation,
    Import,
    ImportOutcome,
    JobState,
    NewProject,
    NewProjectMetadata,
    Plan,
    Problem,
    ProjectState,
    RoundKind,
    RoundPlan,
    RoundState,
    TrainParams,
    Upload,
    Version,
    View,
    WantedLora,
    WantedPicture,
)
from bootlora_client.types import File

PATIENCE_SECONDS = 120


def main(url: str, key: str, picture: Path) -> dict[str, Any]:
    client = AuthenticatedClient(base_url=url, token=key, timeout=httpx.Timeout(60))
    project = good(create_project.sync_detailed(client=client, body=wanted(), idempotency_key="fox-1"))
    again = good(create_project.sync_detailed(client=client, body=wanted(), idempotency_key="fox-1"))
    assert again.id == project.id

    taken_in(client, picture)
    upload = Upload(file=file(picture), view=View.FRONT, framing=Framing.FULL_BODY, tags="smile, sword")
    image = good(upload_image.sync_detailed(project.id, client=client, body=upload))
    crop = good(crop_image.sync_detailed(image.id, client=client, body=Crops(mode=CropMode.QUADRANTS)))
    done(client, crop.id)
    good(start_project.sync_detailed(project.id, client=client, dry_run=True))
    good(start_project.sync_detailed(project.id, client=client))

    curate(client, project.id, picture)
    until(lambda: good(get_project.sync_detailed(project.id, client=client)).state == ProjectState.COMPLETED)

    *_, lora = good(list_loras.sync_detailed(project.id, client=client)).items
    weights = httpx.get(lora.files.kohya.url).content
    assert hashlib.sha256(weights).hexdigest() == lora.files.kohya.sha256
    job = good(generate_pictures.sync_detailed(project.id, client=client, body=daily(lora.id)))
    done(client, job.id)

    another = RoundPlan(kind=RoundKind.CHARACTER, train=TrainParams(train_steps=4))
    extent = good(add_round.sync_detailed(project.id, client=client, body=another, dry_run=True))
    assert (extent.train_steps, extent.rounds[0].number, extent.quota.new_jobs) == (4, 3, 2)

    refused = start_project.sync(project.id, client=client)
    assert isinstance(refused, Problem)
    events = good(list_events.sync_detailed(project.id, client=client, limit=100)).items
    return {
        "project": good(get_project.sync_detailed(project.id, client=client)).to_dict(),
        "lora": lora.to_dict(),
        "seqs": [event.data["seq"] for event in events],
        "refused": refused.code,
    }


def taken_in(client: AuthenticatedClient, picture: Path) -> None:
    """Another project gets its references in a zip, of which one file is no picture."""
    project = good(create_project.sync_detailed(client=client, body=wanted()))
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        target.write(picture, "3_fox/a.png")
        target.writestr("3_fox/a.txt", "eiei21girl, fox ears, sword")
        target.writestr("3_fox/b.png", "no picture")
    content.seek(0)
    sent = File(payload=content, file_name="fox.zip", mime_type="application/zip")
    job = good(import_dataset.sync_detailed(project.id, client=client, body=Import(file=sent)))
    done(client, job.id)
    first, second = good(list_job_files.sync_detailed(job.id, client=client)).items
    assert (first.outcome, second.outcome) == (ImportOutcome.TAKEN, ImportOutcome.REFUSED)
    image = good(get_image.sync_detailed(first.image_id, client=client))
    assert (image.repeats, image.tags) == (3, ["fox ears", "sword"])


def wanted() -> NewProject:
    """One style round, curated by us, and the character round."""
    train = TrainParams(train_steps=4, checkpoint_every_steps=2, prior_images=0)
    rounds = [
        RoundPlan(kind=RoundKind.STYLE, target=6, candidates_per_pick=3.0, views=[View.SIDE, View.BEHIND], train=train),
        RoundPlan(kind=RoundKind.CHARACTER, train=train),
    ]
    metadata = NewProjectMetadata.from_dict({"asset": "npc-0042"})
    return NewProject(
        name="fox girl",
        trigger_word="eiei21girl",
        feature_tags=["fox ears", "yellow eyes"],
        curation=Curation.MANUAL,
        plan=Plan(rounds=rounds),
        metadata=metadata,
    )


def daily(lora_id: str) -> Generation:
    return Generation(
        pictures=[WantedPicture(prompt="eiei21girl, from behind", seed=7, count=2, view=View.BEHIND, framing=None)],
        loras=[WantedLora(lora_id=lora_id, weight=0.8)],
        params=GenerateParams(inference_steps=2),
    )


def curate(client: AuthenticatedClient, project_id: str, picture: Path) -> None:
    """Take one candidate, put an edited picture in the place of another, and end the round."""

    def seen() -> Any:
        return get_round.sync_detailed(project_id, 1, client=client)

    until(lambda: good(seen()).state == RoundState.CURATING)
    first, second, *others = good(list_candidates.sync_detailed(project_id, 1, client=client, limit=100)).items
    decisions = Decisions(accepted=[first.id], rejected=[each.id for each in others])
    good(decide_candidates.sync_detailed(project_id, 1, client=client, body=decisions, if_match=seen().headers["ETag"]))
    tag = get_image.sync_detailed(second.id, client=client).headers["ETag"]
    edited = good(
        put_back_image.sync_detailed(second.id, client=client, body=Version(file=file(picture)), if_match=tag)
    )
    assert edited.parent_id == second.id
    tag = seen().headers["ETag"]
    ended = good(finish_round.sync_detailed(project_id, 1, client=client, body=Finish(), if_match=tag))
    assert ended.state == RoundState.COMPLETED


def done(client: AuthenticatedClient, job_id: str) -> None:
    def state() -> JobState:
        return good(get_job.sync_detailed(job_id, client=client, prefer="wait=20")).state

    until(lambda: state() not in (JobState.QUEUED, JobState.RUNNING))
    assert state() == JobState.SUCCEEDED


def file(path: Path) -> File:
    return File(payload=BytesIO(path.read_bytes()), file_name=path.name, mime_type="image/png")


def good(answer: Any) -> Any:
    assert answer.status_code < HTTPStatus.MULTIPLE_CHOICES, answer.content
    return answer.parsed


def until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
