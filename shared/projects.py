"""Projects: create, change, start, cancel and delete them, and add jobs to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from shared import captions, events, images, loras, plans, prompts, rounds, terms, triggers, usage
from shared.captions import COMMA
from shared.catalog import FRAMINGS, VIEWS, BaseModel, kinds
from shared.catalog.kinds import (
    KINDS,
    CropInputs,
    CropParams,
    GenerateInputs,
    ImportInputs,
    ImportParams,
    UploadInputs,
    UploadParams,
)
from shared.catalog.params import (
    DEFAULT_STRENGTH,
    GenerateParams,
    Original,
    RoundPlan,
    StoredPicture,
    WantedPicture,
)
from shared.errors import Conflict, Invalid, TooMany, under
from shared.lifecycle import OPEN_ROUND_STATES, JobState, ProjectState, RoundKind
from shared.models import Image, Job, Project, Round, User, Webhook
from shared.queue import jobs
from shared.settings import Settings
from shared.triggers import ProjectWarning

MIN_REFERENCES = 4
MOST_NAMED = 20  # base models in a message

_users, _projects = User.__table__, Project.__table__
_ONE_AT_A_TIME = select(_users.c.id).where(_users.c.id == bindparam("whose")).with_for_update(key_share=True)
_COUNTED = select(func.count()).where(_projects.c.user_id == bindparam("whose"))


def create(session: Session, user: User, given: dict[str, Any], base_models: dict[str, BaseModel]) -> Project:
    """Create a draft."""
    project = draft(user, given, base_models)
    session.add(project)
    session.flush()
    return project


def one_count_at_a_time(session: Session, user_id: str) -> None:
    """Lock the user's row, so that what is counted now stays so until the transaction ends."""
    session.execute(_ONE_AT_A_TIME, {"whose": user_id})


def check_count(session: Session, user: User, settings: Settings) -> None:
    """Raise `Conflict` (`too_many_projects`) when a user has as many projects as allowed."""
    count = session.scalar(_COUNTED, {"whose": user.id}) or 0
    if count >= settings.max_projects_per_user:
        raise Conflict(
            f"you have {count} projects, and {settings.max_projects_per_user} are allowed; delete one",
            code="too_many_projects",
        )


def draft(user: User, given: dict[str, Any], base_models: dict[str, BaseModel]) -> Project:
    """The project that `create` would add, checked but not added."""
    base = base_model(base_models, given["base_model"])
    terms.check(given.get("intended_use"), base)
    with under("/plan"):
        plan = plans.resolve(given.get("plan"), base)
    project = Project(
        user_id=user.id,
        name=given["name"],
        trigger_word=given["trigger_word"],
        subject_tags=captions.clean(given["subject_tags"]),
        feature_tags=captions.clean(given["feature_tags"]),
        base_model=given["base_model"],
        intended_use=given.get("intended_use"),
        plan=plan,
        curation=given["curation"],
        labels=given.get("metadata") or {},
    )
    _check_words(project)
    for round_ in project.plan.rounds:
        _check_prompts(project, round_, base)
    return project


def base_model(base_models: dict[str, BaseModel], name: str) -> BaseModel:
    """The base model of a name.

    Raises:
        Invalid: there is none, or it can't be used.
    """
    if name not in base_models:
        usable = sorted(each.name for each in base_models.values() if not each.problem)
        raise Invalid(
            f"there is no base model {name!r}; use one of {', '.join(usable[:MOST_NAMED])}",
            code="unknown_base_model",
            errors=[{"pointer": "/base_model", "detail": "unknown"}],
        )
    found = base_models[name]
    if found.problem:
        raise Invalid(
            f"the base model {name!r} can't be used: {found.problem}",
            code="base_model_unusable",
            errors=[{"pointer": "/base_model", "detail": found.problem}],
        )
    return found


def base_of(project: Project, base_models: dict[str, BaseModel]) -> BaseModel:
    """The base model of a project.

    Raises:
        Invalid: there is none any more, it can't be used, or its licence forbids what the project is for.
    """
    base = base_model(base_models, project.base_model)
    terms.check(project.intended_use, base)
    return base


def warnings(project: Project, base_models: Callable[[], dict[str, BaseModel]]) -> list[ProjectWarning]:
    """Warnings about a project's trigger word, and about the licence of its base model."""
    found = triggers.warnings(project.trigger_word, [*project.subject_tags, *project.feature_tags])
    if project.intended_use is None:
        return found
    return found + terms.warnings(project.intended_use, base_models().get(project.base_model))


def change(session: Session, project: Project, changes: dict[str, Any], base_models: dict[str, BaseModel]) -> Project:
    """Change a project. Only name, metadata and curation can change after the start."""
    fixed = set(changes) - {"name", "metadata", "curation", "intended_use"}
    if fixed and project.state != ProjectState.DRAFT:
        raise Conflict(
            f"the project is {project.state}; {', '.join(sorted(fixed))} can be changed only in a draft",
            code="project_not_draft",
        )
    old_features, old_curation, old_base = project.feature_tags, project.curation, project.base_model
    for name in ("name", "trigger_word", "curation", "base_model"):
        if name in changes:
            setattr(project, name, changes[name])
    for name in ("subject_tags", "feature_tags"):
        if name in changes:
            setattr(project, name, captions.clean(changes[name]))
    if "metadata" in changes:
        project.labels = changes["metadata"]
    if "intended_use" in changes:
        project.intended_use = changes["intended_use"]
        base_of(project, base_models)
    if fixed:
        base, old = base_of(project, base_models), base_models.get(old_base)
        with under("/plan"):
            if "plan" in changes:
                project.plan = plans.resolve(changes["plan"], base)
            elif project.base_model != old_base:
                project.plan = plans.carry_over(project.plan, base if old is None or old.problem else old, base)
        _check_words(project)
        for plan in project.plan.rounds:
            _check_prompts(project, plan, base)
    if project.feature_tags != old_features:
        _retag(session, project, old_features)
    if changes.get("curation", old_curation) != old_curation:
        rounds.follow_curation(session, project)
    session.flush()
    return project


def start(session: Session, project: Project) -> Job:
    """Create the rounds and start the first."""
    check_startable(session, project)
    rounds.move_project(project, ProjectState.RUNNING)
    for number, plan in enumerate(project.plan.rounds, 1):
        session.add(Round(project=project, number=number, kind=plan.kind, target=plan.target, plan=plan))
    session.flush()
    events.record(session, project, "project.started", rounds=len(project.plan.rounds), metadata=project.labels)
    return rounds.begin(session, rounds.get(session, project.id, 1))


def check_startable(session: Session, project: Project) -> None:
    """Raise an error if the project can't start yet."""
    if project.state != ProjectState.DRAFT:
        raise Conflict(f"the project is {project.state}; only a draft can be started", code="project_not_draft")
    if not project.feature_tags:
        raise Invalid(
            "the project has no feature tags; add some, such as `fox ears, blonde hair`", code="no_feature_tags"
        )
    _check_no_open_uploads(session, project)
    chosen = images.dataset(session, project.id)
    if len(chosen) < MIN_REFERENCES:
        raise Conflict(
            f"the project has {len(chosen)} accepted reference images and needs {MIN_REFERENCES}; "
            "upload more, or crop one into four",
            code="too_few_references",
        )


def add_round(session: Session, project: Project, given: dict[str, Any], base_models: dict[str, BaseModel]) -> Round:
    """Reopen a completed project with another round on all accepted pictures."""
    plan = another_round(session, project, given, base_models)
    before = rounds.of_project(session, project.id)
    rounds.move_project(project, ProjectState.RUNNING)
    round_ = Round(
        project=project,
        number=len(before) + 1,
        kind=plan.kind,
        target=plan.target or before[-1].target,
        plan=plan,
    )
    session.add(round_)
    session.flush()
    rounds.begin(session, round_)
    return round_


def another_round(
    session: Session, project: Project, given: dict[str, Any], base_models: dict[str, BaseModel]
) -> RoundPlan:
    """The round that `add_round` would add, checked but not added."""
    if project.state != ProjectState.COMPLETED:
        raise Conflict(f"the project is {project.state}; add rounds only to a completed project", code="not_completed")
    base = base_of(project, base_models)
    plan = plans.resolve_round(given, base)
    _check_prompts(project, plan, base)
    accepted = len(images.dataset(session, project.id))
    if plan.kind == RoundKind.STYLE and plan.target <= accepted:
        raise Invalid(
            f"the project already has {accepted} accepted pictures; give a higher `target`",
            code="target_reached",
            errors=[{"pointer": "/target", "detail": f"must be more than {accepted}"}],
        )
    return plan


def cancel(session: Session, project: Project) -> Project:
    """Cancel a project. Cancelling twice changes nothing."""
    if project.state == ProjectState.CANCELLED:
        return project
    rounds.move_project(project, ProjectState.CANCELLED)
    rounds.cancel_all(session, project)
    events.record(session, project, "project.cancelled", metadata=project.labels)
    return project


def delete(session: Session, project: Project) -> None:
    """Delete a project's rows. The caller deletes its objects. Raises `Conflict` while the project is running."""
    busy = session.scalar(select(Job.id).where(Job.project_id == project.id, Job.state.in_(jobs.OPEN_STATES)).limit(1))
    if busy or any(round_.state in OPEN_ROUND_STATES for round_ in rounds.of_project(session, project.id)):
        raise Conflict("the project is running; cancel it first", code="project_running")
    # Lock all webhooks of the user before their deliveries, as senders do. Some are for all projects.
    told = select(Webhook.id).where(Webhook.user_id == project.user_id).order_by(Webhook.id)
    session.execute(told.with_for_update(key_share=True))
    session.delete(project)
    session.flush()


def take_in(session: Session, project: Project, key: str, params: UploadParams, settings: Settings) -> Job:
    """Add a job that makes a reference picture of an uploaded file. Returns the existing job if there is one."""
    known = upload_of(session, project, key)
    if known is not None:
        return known
    usage.check_stored_bytes(session, project.user_id, settings)
    images.check_upload(session, project, settings.max_images_per_project)
    images.check_words(project, params.tags)
    return jobs.enqueue(session, project, kinds.UPLOAD, params=params, inputs=UploadInputs(key=key))


def upload_of(session: Session, project: Project, key: str) -> Job | None:
    """The job of an uploaded file that has not failed or been cancelled."""
    query = select(Job).where(
        Job.project_id == project.id,
        Job.kind == kinds.UPLOAD.name,
        Job.inputs["key"].as_string() == key,
        Job.state.not_in((JobState.FAILED, JobState.CANCELLED)),
    )
    return session.scalars(query).first()


def check_imports(session: Session, user_id: str, settings: Settings) -> None:
    """Raise `TooMany` (`too_many_queued_imports`) when as many imports of a user are waiting as allowed."""
    waiting = (Job.user_id == user_id, Job.state == JobState.QUEUED, Job.kind == kinds.IMPORT.name)
    count, allowed = session.scalar(select(func.count()).where(*waiting)) or 0, settings.max_queued_imports
    if count >= allowed:
        raise TooMany(
            f"{count} of your imports are waiting, and {allowed} are allowed; try again when some of them have run",
            code="too_many_queued_imports",
        )


def import_zip(session: Session, project: Project, key: str, pictures: int, settings: Settings) -> Job:
    """Make reference pictures of those in a zip of the store."""
    one_count_at_a_time(session, project.user_id)
    check_imports(session, project.user_id, settings)
    images.check_upload(session, project, settings.max_images_per_project, pictures)
    inputs = ImportInputs(key=key, words=images.words(project))
    return jobs.enqueue(session, project, kinds.IMPORT, params=ImportParams(pictures=pictures), inputs=inputs)


def crop(session: Session, project: Project, image: Image, params: CropParams, settings: Settings) -> Job:
    """Add a job that crops one picture into several references."""
    if project.state != ProjectState.DRAFT:
        raise Conflict(f"the project is {project.state}; crop pictures only in a draft", code="project_not_draft")
    images.check_crops(image, params)
    for box in params.boxes:
        images.check_words(project, box.tags)
    usage.check_stored_bytes(session, project.user_id, settings)
    images.check_room(session, project, kinds.CROP.references(params), settings.max_images_per_project)
    inputs = CropInputs(image=images.as_input(image), base_model=project.base_model)
    return jobs.enqueue(session, project, kinds.CROP, params=params, inputs=inputs)


def draw(
    session: Session,
    project: Project,
    user: User,
    given: dict[str, Any],
    base_models: dict[str, BaseModel],
    settings: Settings,
) -> Job:
    """Add a job that draws pictures with the project's LoRAs."""
    jobs.check_cap(session, user, settings)
    params, inputs = drawing(session, project, given, base_models, settings)
    return jobs.enqueue(
        session,
        project,
        kinds.GENERATE,
        params=params,
        inputs=inputs,
        priority=given["priority"],
        labels=given.get("metadata") or project.labels,
    )


def drawing(
    session: Session, project: Project, given: dict[str, Any], base_models: dict[str, BaseModel], settings: Settings
) -> tuple[GenerateParams, GenerateInputs]:
    """What `draw` would enqueue, checked but not kept."""
    base = base_of(project, base_models)
    count = sum(each["count"] for each in given["pictures"])
    if count > settings.max_pictures_per_job:
        raise Invalid(
            f"{count} pictures are more than the {settings.max_pictures_per_job} of one job",
            code="too_many_pictures",
            errors=[{"pointer": "/pictures", "detail": f"at most {settings.max_pictures_per_job} together"}],
        )
    trained = project.plan.rounds[-1].train
    with under("/params"):
        params = plans.generate_params(base, given.get("params"), trained.clip_skip)
    sources = images.to_draw_from(session, project, {each["image"] for each in given["pictures"] if each.get("image")})
    wanted = []
    for number, each in enumerate(given["pictures"]):
        captions.check_allowed(each["prompt"])
        plans.check_prompt(each["prompt"], base, f"/pictures/{number}/prompt", params.prompt_syntax)
        if params.prompt_syntax == "weighted":  # brackets may split a denied word
            captions.check_allowed(prompts.unweighted(each["prompt"]))
        original = _original(each, f"/pictures/{number}", sources, given.get("params"), base)
        wanted += [
            WantedPicture(
                prompt=each["prompt"],
                seed=each["seed"] + offset,
                view=each.get("view"),
                framing=each.get("framing"),
                original=original,
            )
            for offset in range(each["count"])
        ]
    inputs = GenerateInputs(
        base_model=project.base_model,
        pictures=wanted,
        loras=loras.of_project(session, project, given["loras"], base_models),
    )
    for original in inputs.originals:
        size = replace(params, width=original.width, height=original.height)
        most = plans.largest_batch(size, base)
        params = replace(params, batch_size=min(params.batch_size or most, most))
    return params, inputs


def _original(
    wanted: dict[str, Any], pointer: str, sources: dict[str, Image], params: dict[str, Any] | None, base: BaseModel
) -> Original | None:
    """The original that a wanted picture names; None if it names none."""
    mask, strength = wanted.get("mask"), wanted.get("strength")
    if not wanted.get("image"):
        for name, value in (("mask", mask), ("strength", strength)):
            if value is not None:
                raise Invalid(
                    f"`{name}` is for a picture that is drawn from another; name that one as `image`",
                    code="image_left_out",
                    errors=[{"pointer": f"{pointer}/{name}", "detail": "there is no `image`"}],
                )
        return None
    image = sources[wanted["image"]]
    own = (image.width, image.height)
    if mask is not None and (mask["width"], mask["height"]) != own:
        raise Invalid(
            f"the mask is {mask['width']} x {mask['height']} pixels, and the image {own[0]} x {own[1]}; "
            "make the mask as large as the image",
            code="mask_size",
            errors=[{"pointer": f"{pointer}/mask", "detail": "has another size than the image"}],
        )
    with under("/params"):
        width, height = plans.size_of_redrawing(own, params, base)
    return Original(
        image_id=image.id,
        image=StoredPicture(key=image.key, sha256=image.sha256),
        mask=StoredPicture(key=mask["key"], sha256=mask["sha256"]) if mask else None,
        strength=DEFAULT_STRENGTH if strength is None else strength,
        width=width,
        height=height,
    )


def _check_no_open_uploads(session: Session, project: Project) -> None:
    """Refuse a start while jobs may still add references, because the start freezes the dataset."""
    for job in images.arriving(session, project):
        verb = KINDS[job.kind].verb
        raise Conflict(f"job {job.id} is still {verb}; wait until it has ended", code=f"still_{verb}")


def _check_words(project: Project) -> None:
    trigger = project.trigger_word
    if COMMA.search(trigger):
        raise Invalid(
            "the trigger word has a comma, which would make it two tags in a caption; remove the comma",
            code="comma_in_trigger",
            errors=[{"pointer": "/trigger_word", "detail": "has a comma"}],
        )
    known = [*project.feature_tags, *project.subject_tags]
    for word in captions.clean([trigger, *known]):
        if word in (*VIEWS.values(), *FRAMINGS.values()):
            raise Invalid(
                f"{word!r} is a view or framing tag; remove it, since pictures get it from their view and framing",
                code="view_tag",
            )
    if any(word in known for word in captions.clean([trigger])):
        raise Invalid(
            f"the trigger word {trigger!r} is already a tag; choose an unused word",
            code="trigger_is_a_tag",
            errors=[{"pointer": "/trigger_word", "detail": "is already a tag"}],
        )
    both = set(project.feature_tags) & set(project.subject_tags)
    if both:
        raise Invalid(
            f"{', '.join(sorted(both))}: both a subject tag and a feature tag; remove one of them", code="tag_in_both"
        )
    captions.check_allowed(trigger, *known)


def _check_prompts(project: Project, plan: RoundPlan, base: BaseModel) -> None:
    """Refuse a round whose longest prompt is longer than the base model reads; the view tags would be cut off."""
    (picture,) = plans.pictures(
        trigger_word=project.trigger_word,
        subject_tags=project.subject_tags,
        feature_tags=project.feature_tags,
        views=[max(plan.views, key=lambda view: len(VIEWS[view]))],
        framings=plan.framings,
        prompt_tags=plan.prompt_tags,
        count=1,
        seed=0,
        name_features=plan.kind == RoundKind.STYLE,
    )
    captions.check_allowed(picture.prompt)
    plans.check_prompt(picture.prompt, base, "/feature_tags")


def _retag(session: Session, project: Project, old_features: list[str]) -> None:
    """Replace the old features in the references' tags with the new ones that each can show."""
    for image in session.scalars(select(Image).where(Image.project_id == project.id)):
        others = [tag for tag in image.tags if tag not in old_features]
        image.tags = plans.image_tags(project.feature_tags, image.view, image.framing, others)
        image.variants = None  # they name the old features
