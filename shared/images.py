"""Images: uploads, crops, candidates and edits, and the decisions about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import captions, events, plans, prompts
from shared.catalog import FRAMINGS, VIEWS, kinds
from shared.catalog.kinds import (
    KINDS,
    CropParams,
    CropResult,
    GenerateResult,
    ImageInput,
    ImportedImage,
    ImportResult,
    UploadResult,
)
from shared.errors import Conflict, Invalid, NotFound
from shared.lifecycle import TERMINAL_JOB_STATES, Decision, ImageRole, ImageSource, ProjectState, RoundState
from shared.models import Image, Job, Project, Round
from shared.outside.pictures import MAX_ASPECT

DATASET_ROLES = (ImageRole.REFERENCE, ImageRole.CANDIDATE)
MIN_CROP_SIDE = 16


def add_upload(
    session: Session,
    project: Project,
    stored: dict[str, Any],
    *,
    view: str | None = None,
    framing: str | None = None,
    tags: list[str] | None = None,
    max_images: int,
) -> Image:
    """A reference picture that a client sent. `stored` has key, sha256, size_bytes, width, height and `notes`."""
    check_words(project, tags or [])
    check_upload(session, project, max_images)
    columns, notes = _parted(stored)
    return _add(session, project, _reference(project, columns, view, framing, tags or []), notes)


def check_words(project: Project, tags: Sequence[str]) -> None:
    """Refuse denied words in tags, also where a caption joins the tags with those of the project."""
    captions.check_allowed(*words(project), *tags)


def words(project: Project) -> list[str]:
    """The words of a project that its captions may name in addition to the tags of a picture."""
    return [project.trigger_word, *project.subject_tags, *project.feature_tags]


def take_upload(session: Session, job: Job, result: UploadResult) -> None:
    """Add the picture of an upload job as a reference. The limit was checked when the job was created."""
    project, params = session.get_one(Project, job.project_id), kinds.UPLOAD.params_of(job)
    reference = _reference(project, asdict(result.image), params.view, params.framing, params.tags, job_id=job.id)
    _add(session, project, reference, result.notes)


def take_import(session: Session, job: Job, result: ImportResult) -> None:
    """Add the pictures of a zip to the references. Whether there is room was checked when the job was made."""
    project = session.get_one(Project, job.project_id)
    for each in result.images:
        _add(session, project, _imported(project, job, each), each.notes)


def check_upload(session: Session, project: Project, max_images: int, more: int = 1) -> None:
    """Refuse references that can't be added, those on their way counted too."""
    if project.state != ProjectState.DRAFT:
        raise Conflict(f"the project is {project.state}; add references only to a draft", code="project_not_draft")
    check_room(session, project, more, max_images)


def arriving(session: Session, project: Project) -> dict[Job, int]:
    """The open jobs that will add references, each with its maximum number."""
    query = select(Job).where(Job.project_id == project.id, Job.state.not_in(TERMINAL_JOB_STATES))
    bring = {job: KINDS[job.kind].references_of(job) for job in session.scalars(query)}
    return {job: count for job, count in bring.items() if count}


def check_room(session: Session, project: Project, more: int, max_images: int) -> None:
    """Refuse pictures over the project's limit. Pictures of open jobs count; drawn ones don't."""
    brought = (Image.project_id == project.id, Image.source != ImageSource.GENERATED)
    count = session.scalar(select(func.count()).where(*brought)) or 0
    count += sum(arriving(session, project).values())
    if count + more > max_images:
        raise Conflict(
            f"the project has {count} uploaded or cropped pictures, open jobs included, of at most {max_images}",
            code="too_many_images",
        )


def add_edit(session: Session, project: Project, original: Image, stored: dict[str, Any], *, max_images: int) -> Image:
    """Add an edited version of an image. The original is kept and rejected."""
    check_open(session, original)
    check_room(session, project, 1, max_images)
    columns, notes = _parted(stored)
    image = Image(
        project_id=project.id,
        round_id=original.round_id,
        parent_id=original.id,
        role=original.role,
        source=ImageSource.EDITED,
        decision=Decision.ACCEPTED,
        view=original.view,
        framing=original.framing,
        tags=original.tags,
        variants=original.variants,
        repeats=original.repeats,
        prompt=original.prompt,
        seed=original.seed,
        **columns,
    )
    original.decision = Decision.REJECTED
    return _add(session, project, image, notes)


def check_crops(image: Image, params: CropParams) -> None:
    """Refuse crops that can't be made."""
    if (params.mode == "boxes") != bool(params.boxes):
        raise Invalid("give `boxes` with mode `boxes`, and with no other mode", code="invalid_boxes")
    for number, crop in enumerate(params.boxes):
        left, top, right, bottom = crop.box
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise Invalid(
                f"box {number} is outside the picture, which is {image.width} x {image.height} pixels; make it fit",
                code="box_outside",
                errors=[{"pointer": f"/boxes/{number}/box", "detail": "outside the picture"}],
            )
        if min(right - left, bottom - top) < MIN_CROP_SIDE:
            raise Invalid(
                f"box {number} is too small; each side must have at least {MIN_CROP_SIDE} pixels",
                code="box_too_small",
                errors=[{"pointer": f"/boxes/{number}/box", "detail": f"a side below {MIN_CROP_SIDE} pixels"}],
            )
        if max(right - left, bottom - top) > MAX_ASPECT * min(right - left, bottom - top):
            raise Invalid(
                f"box {number} is too narrow; its longer side may be at most {MAX_ASPECT} times the shorter",
                code="box_too_narrow",
                errors=[{"pointer": f"/boxes/{number}/box", "detail": f"over {MAX_ASPECT} times as long as wide"}],
            )


def take_crops(session: Session, job: Job, result: CropResult) -> None:
    """Add the crops of a crop job as references, and reject their source unless it is to be kept."""
    project = session.get_one(Project, job.project_id)
    parent = session.get_one(Image, kinds.CROP.inputs_of(job).image.id)
    if not kinds.CROP.params_of(job).keep_source:
        parent.decision = Decision.REJECTED
    known = {*VIEWS.values(), *FRAMINGS.values(), *project.feature_tags}
    others = [tag for tag in parent.tags if tag not in known]
    for crop in result.crops:
        stored = asdict(crop)
        view, framing, tags = stored.pop("view") or parent.view, stored.pop("framing"), stored.pop("tags")
        made_from: dict[str, Any] = {"source": ImageSource.CROP, "job_id": job.id, "parent_id": parent.id}
        _add(session, project, _reference(project, stored, view, framing, [*tags, *others], **made_from))


def add_drawn(session: Session, job: Job, result: GenerateResult, role: ImageRole) -> None:
    """Add the pictures that a job has drawn."""
    project = session.get_one(Project, job.project_id)
    head = captions.clean([project.trigger_word, *project.subject_tags])
    weighted = kinds.GENERATE.params_of(job).prompt_syntax == "weighted"
    for drawn in result.images:
        prompt = prompts.unweighted(drawn.prompt) if weighted else drawn.prompt
        tags = [tag for tag in captions.clean([captions.without_quality(prompt)]) if tag not in head]
        image = Image(
            project_id=project.id,
            round_id=job.round_id,
            job_id=job.id,
            role=role,
            source=ImageSource.GENERATED,
            tags=tags,
            **asdict(drawn),
        )
        session.add(image)
    session.flush()


def change(session: Session, image: Image, changes: dict[str, Any]) -> Image:
    """Change an image's decision, tags, view or framing. New tags replace the variants of its caption."""
    if "decision" in changes and changes["decision"] != image.decision:
        decide(session, image, Decision(changes["decision"]))
    if "tags" in changes:
        check_words(session.get_one(Project, image.project_id), changes["tags"])
        image.tags = captions.clean(changes["tags"])
    if {"tags", "view", "framing"} & changes.keys():
        image.variants = None
    if "view" in changes or "framing" in changes:
        place(session, image, changes.get("view", image.view), changes.get("framing", image.framing))
    session.flush()
    return image


def place(session: Session, image: Image, view: str | None, framing: str | None) -> None:
    """Set an image's view and framing, and update its tags to match."""
    placing = {*VIEWS.values(), *FRAMINGS.values()}
    project = session.get_one(Project, image.project_id)
    others = [tag for tag in image.tags if tag not in placing]
    image.view, image.framing = view, framing
    image.tags = plans.image_tags([t for t in project.feature_tags if t in others], view, framing, others)


def decide(session: Session, image: Image, decision: Decision) -> None:
    """Accept or reject a candidate while its round is being curated, or a reference before the project starts."""
    check_open(session, image)
    check_present(image, decision)
    image.decision = decision


def check_present(image: Image, decision: Decision) -> None:
    """Refuse to accept a picture that the store has lost."""
    if decision == Decision.ACCEPTED and image.state != "ready":
        raise Conflict(
            f"the file of picture {image.id} is missing from the store; upload a new version", code="picture_missing"
        )


def check_open(session: Session, image: Image) -> None:
    """Refuse a change of an image that is not part of the dataset, or whose dataset is frozen."""
    if image.role not in DATASET_ROLES:
        raise Conflict(
            f"a picture of role {image.role} can't be in the dataset; choose a reference or a candidate",
            code="not_a_candidate",
        )
    if image.round_id is None:
        if session.get_one(Project, image.project_id).state != ProjectState.DRAFT:
            raise Conflict(
                "the project has started; references can be changed only in a draft", code="project_not_draft"
            )
        return
    round_ = session.get_one(Round, image.round_id)
    if round_.state != RoundState.CURATING:
        raise Conflict(f"round {round_.number} is {round_.state}, not curating", code="round_not_curating")


def to_draw_from(session: Session, project: Project, wanted: Collection[str]) -> dict[str, Image]:
    """Pictures of a project by their ids, to draw others from.

    Raises:
        NotFound: the project's owner has no such picture.
        Invalid: a picture is of another project.
        Conflict: the store has lost a picture.
    """
    query = select(Image).join(Project, Project.id == Image.project_id)
    mine = session.scalars(query.where(Image.id.in_(wanted), Project.user_id == project.user_id))
    found = {image.id: image for image in mine}
    for image_id in wanted:
        if image_id not in found:
            raise NotFound(f"there is no image {image_id}; list yours with GET /v1/projects/ID/images")
        if found[image_id].project_id != project.id:
            raise Invalid(
                f"image {image_id} is of another project; upload it to this one first",
                code="image_of_another_project",
            )
        if found[image_id].state != "ready":
            raise Conflict(
                f"the file of image {image_id} is missing from the store; choose another", code="picture_missing"
            )
    return found


def dataset(session: Session, project_id: str) -> list[Image]:
    """The accepted pictures of a project, oldest first."""
    query = select(Image).where(
        Image.project_id == project_id,
        Image.role.in_(DATASET_ROLES),
        Image.decision == Decision.ACCEPTED,
        Image.state == "ready",
    )
    return list(session.scalars(query.order_by(Image.created_at, Image.id)))


def pending(session: Session, round_id: str) -> list[Image]:
    """The undecided candidates of a round."""
    query = select(Image).where(
        Image.round_id == round_id, Image.role == ImageRole.CANDIDATE, Image.decision == Decision.PENDING
    )
    return list(session.scalars(query.order_by(Image.created_at, Image.id)))


def as_input(image: Image) -> ImageInput:
    """An image as a job input."""
    return ImageInput(id=image.id, key=image.key, sha256=image.sha256, view=image.view, framing=image.framing)


def original_size(image: Image) -> tuple[int, int]:
    """Width and height before the service enlarged it: small crops are stored in the base model's resolution."""
    if image.source != ImageSource.CROP or image.box is None:
        return image.width, image.height
    left, top, right, bottom = image.box
    return right - left, bottom - top


def _reference(
    project: Project,
    stored: dict[str, Any],
    view: str | None,
    framing: str | None,
    tags: list[str],
    *,
    source: ImageSource = ImageSource.UPLOAD,
    **made_from: Any,
) -> Image:
    return Image(
        project_id=project.id,
        role=ImageRole.REFERENCE,
        source=source,
        decision=Decision.ACCEPTED,
        view=view,
        framing=framing,
        tags=plans.image_tags(project.feature_tags, view, framing, tags),
        **made_from,
        **stored,
    )


def _parted(stored: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The columns of a stored picture, and what was ignored of its file."""
    return {name: value for name, value in stored.items() if name != "notes"}, stored.get("notes", [])


def _imported(project: Project, job: Job, imported: ImportedImage) -> Image:
    """A reference whose tags come from its caption alone."""
    stored, _ = _parted(asdict(imported))
    captioned, repeats = stored.pop("captions"), stored.pop("repeats")
    if captioned is None:
        return _reference(project, stored, None, None, [], job_id=job.id, repeats=repeats)
    head = captions.clean([project.trigger_word, *project.subject_tags])
    tags, *variants = [[tag for tag in captions.clean([caption]) if tag not in head] for caption in captioned]
    view = next((name for name, tag in VIEWS.items() if tag in tags), None)
    framing = next((name for name, tag in FRAMINGS.items() if tag in tags), None)
    image = _reference(project, stored, view, framing, [], job_id=job.id, repeats=repeats)
    image.tags, image.variants = tags, variants or None
    return image


def _add(session: Session, project: Project, image: Image, notes: Sequence[str] = ()) -> Image:
    session.add(image)
    session.flush()
    named = {"image_id": image.id, "source": image.source, "round_id": image.round_id}
    events.record(session, project, "image.added", **named, notes=list(notes))
    return image
