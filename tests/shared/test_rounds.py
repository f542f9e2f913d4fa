from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from shared import events, images, loras, projects, rounds
from shared.catalog import kinds
from shared.catalog.kinds import KINDS
from shared.errors import Conflict, Invalid
from shared.lifecycle import Decision
from shared.models import Event, Image, Job, Project, Round, User
from shared.queue import jobs
from shared.runtime import Runtime
from tests import factories
from tests.domain import claim, make_project, make_runtime, result_of, work_off


def start(runtime: Runtime, project: Project, **changes: Any) -> None:
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        for name, value in changes.items():
            setattr(row, name, value)
        projects.start(session, row)


def story(runtime: Runtime, project: Project) -> list[str]:
    with runtime.db.reading() as session:
        rows = events.after(session, project.id, 0, 1000)
        assert [event.seq for event in rows] == list(range(1, len(rows) + 1))
        return [event.type for event in rows if not event.type.startswith(("job.", "image."))]


def rows_of(runtime: Runtime, project: Project) -> tuple[Project, list[Round]]:
    with runtime.db.reading() as session:
        return session.get_one(Project, project.id), rounds.of_project(session, project.id)


def open_job(runtime: Runtime, project: Project) -> Job:
    with runtime.db.reading() as session:
        query = select(Job).where(Job.project_id == project.id, Job.state.in_(jobs.OPEN_STATES))
        return session.scalars(query).one()


def test_unattended_the_whole_method_runs_from_four_to_a_character_lora(runtime: Runtime, project: Project) -> None:
    start(runtime, project)
    work_off(runtime)
    row, laps = rows_of(runtime, project)
    assert row.state == "completed"
    assert [len(lap.dataset) for lap in laps] == [4, 16, 40]
    assert story(runtime, project) == [
        "project.started",
        *["round.training_started", "round.generating_started", "round.candidates_ready", "round.completed"] * 2,
        "round.training_started",
        "round.evaluating_started",
        "round.completed",
        "project.completed",
    ]


def test_a_round_knows_its_jobs_by_the_names_of_their_kinds(
    runtime: Runtime, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have another row for a kind, with a handler or a time limit of its own."""
    for kind in list(KINDS.values()):
        monkeypatch.setitem(KINDS, kind.name, replace(kind, timeout_seconds=kind.timeout_seconds + 1))
    start(runtime, project)
    work_off(runtime)
    assert rows_of(runtime, project)[0].state == "completed"


def test_candidates_are_drawn_at_the_plan_s_weight_and_the_evaluation_at_full(
    runtime: Runtime, project: Project
) -> None:
    start(runtime, project)
    work_off(runtime)
    with runtime.db.reading() as session:
        drawn = session.scalars(select(Job).where(Job.kind == "generate").order_by(Job.created_at)).all()
    assert [job.inputs["loras"][0]["weight"] for job in drawn] == [0.5, 0.5, 1.0]


def test_candidates_show_the_views_that_are_still_wanted(runtime: Runtime, project: Project) -> None:
    """Her four references are from the front, which is its share of sixteen and more."""
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.db.reading() as session:
        waiting = images.pending(session, rounds.get(session, project.id, 1).id)
    assert {image.view for image in waiting} == {"three-quarter", "side", "behind", "above", "below"}
    assert len(waiting) == 48


def test_features_stay_in_style_captions_and_leave_those_of_the_character_round(
    runtime: Runtime, project: Project
) -> None:
    start(runtime, project)
    work_off(runtime)
    _, laps = rows_of(runtime, project)
    assert all("blonde hair" in entry.captions[0] for entry in laps[1].dataset)
    assert not any("blonde hair" in entry.captions[0] for entry in laps[2].dataset)
    assert all(entry.captions[0].startswith("eiei21girl, 1girl, solo") for entry in laps[2].dataset)


def test_manual_curation_waits_and_holds_no_job(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    _, laps = rows_of(runtime, project)
    assert laps[0].state == "curating"
    with runtime.db.reading() as session:
        assert not list(session.scalars(select(Job).where(Job.state.in_(jobs.OPEN_STATES))))
        assert len(images.pending(session, laps[0].id)) == 48


def test_a_person_curates_and_the_next_round_trains_on_what_they_took(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        candidates = images.pending(session, lap.id)
        rounds.decide_all(session, lap, {image.id: Decision.ACCEPTED for image in candidates[:12]})
        rounds.finish(session, lap, accept_fewer=False)
    _, laps = rows_of(runtime, project)
    assert laps[0].state == "completed"
    taken = {image.id for image in candidates[:12]}
    assert taken <= {entry.image_id for entry in laps[1].dataset}
    assert len(laps[1].dataset) == 16


def test_finishing_with_too_few_is_refused_unless_it_is_meant(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with pytest.raises(Conflict, match="12 of 16 pictures are missing"), runtime.transaction() as session:
        rounds.finish(session, rounds.get(session, project.id, 1), accept_fewer=False)
    with runtime.transaction() as session:
        rounds.finish(session, rounds.get(session, project.id, 1), accept_fewer=True)
    assert rows_of(runtime, project)[1][0].state == "completed"


def test_an_edited_picture_takes_the_place_of_its_original(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        original = images.pending(session, lap.id)[3]
        stored = {"key": "edited", "sha256": "1", "size_bytes": 1, "width": 64, "height": 64}
        edit = images.add_edit(session, session.get_one(Project, project.id), original, stored, max_images=1000)
        rounds.finish(session, lap, accept_fewer=True)
    _, laps = rows_of(runtime, project)
    assert {"edited"} == {entry.key for entry in laps[1].dataset} - {"k"}
    assert edit.view == original.view
    assert edit.tags == original.tags


def test_a_training_is_told_how_large_a_crop_was(runtime: Runtime, project: Project) -> None:
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        factories.make_image(session, row, id="img_crop", source="crop", box=[10, 20, 40, 90], width=512, height=1195)
        sizes = {entry.image_id: entry.original for entry in rounds.present_dataset(session, row)}
    assert sizes.pop("img_crop") == (30, 70)
    assert set(sizes.values()) == {(64, 64)}


def test_quality_tags_of_a_prompt_go_into_no_caption(runtime: Runtime, project: Project) -> None:
    stored = {"key": "k", "sha256": "0", "size_bytes": 1, "width": 64, "height": 64}
    prompt = "eiei21girl, 1girl, solo, fox ears, from side, white background, masterpiece, score_9, high score"
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        job = factories.make_job(session, row)
        drawn = kinds.DrawnImage(**stored, prompt=prompt, seed=1, view="side", framing=None)
        images.add_drawn(session, job, kinds.GenerateResult(images=[drawn]), "candidate")
        image = session.scalars(select(Image).where(Image.job_id == job.id)).one()
        assert image.tags == ["fox ears", "from side", "white background"]
        assert image.prompt == prompt


def test_a_reference_is_edited_before_the_start_only(runtime: Runtime, project: Project) -> None:
    stored = {"key": "edited", "sha256": "1", "size_bytes": 1, "width": 64, "height": 64}
    with runtime.transaction() as session:
        original, *_ = images.dataset(session, project.id)
        images.add_edit(session, session.get_one(Project, project.id), original, stored, max_images=1000)
    start(runtime, project, curation="manual")
    with runtime.transaction() as session:
        original, *_ = images.dataset(session, project.id)
        with pytest.raises(Conflict, match="only in a draft"):
            images.add_edit(session, session.get_one(Project, project.id), original, stored, max_images=1000)


def test_more_candidates_can_be_asked_for(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        rounds.ask_for_more(session, rounds.get(session, project.id, 1), 5, ["behind"])
    work_off(runtime)
    with runtime.db.reading() as session:
        lap = rounds.get(session, project.id, 1)
        assert lap.state == "curating"
        pending = images.pending(session, lap.id)
        assert len(pending) == 53
        assert [image.view for image in pending[48:]] == ["behind"] * 5
        assert len({image.seed for image in pending}) == 53


def test_curation_goes_on_while_more_is_drawn(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        rounds.ask_for_more(session, lap, 5, ["behind"])
        rounds.decide_all(session, lap, {images.pending(session, lap.id)[0].id: Decision.ACCEPTED})
    work_off(runtime)
    with runtime.db.reading() as session:
        lap = rounds.get(session, project.id, 1)
        assert len(images.pending(session, lap.id)) == 52
        assert len(images.dataset(session, project.id)) == 5
    assert story(runtime, project).count("round.candidates_ready") == 2


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_a_round_outlives_a_drawing_of_more_that_ends_badly(runtime: Runtime, project: Project, ends: str) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        asked = rounds.ask_for_more(session, rounds.get(session, project.id, 1), 5, None)
    if ends == "cancelled":
        with runtime.transaction() as session:
            rounds.cancel_job(session, session.get_one(Job, asked.id))
    else:
        held = claim(runtime, asked)
        assert held is not None
        with runtime.transaction() as session:
            error = {"code": "gpu_oom", "message": "too large", "retryable": True}
            rounds.job_ended_badly(session, jobs.fail(session, held, error))
    row, laps = rows_of(runtime, project)
    assert (row.state, laps[0].state) == ("running", "curating")


def test_a_drawing_that_is_cancelled_leaves_no_scored_round_waiting(runtime: Runtime, project: Project) -> None:
    """Everything is decided, more is being drawn, the curation becomes the scorer's, and the drawing is cancelled."""
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        rounds.decide_all(
            session, lap, dict.fromkeys((i.id for i in images.pending(session, lap.id)), Decision.REJECTED)
        )
        asked = rounds.ask_for_more(session, lap, 5, None)
        row = session.get_one(Project, project.id)
        row.curation = "auto"
        rounds.follow_curation(session, row)
    with runtime.transaction() as session:
        rounds.cancel_job(session, session.get_one(Job, asked.id))
    assert rows_of(runtime, project)[1][0].state == "generating", "the scorer has too few, and draws"


def test_asking_for_more_twice_fails_nothing(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        first = rounds.ask_for_more(session, rounds.get(session, project.id, 1), 5, None)
        row = session.get_one(Project, project.id)
        row.curation = "auto"
        rounds.follow_curation(session, row)
        rounds.ask_for_more(session, rounds.get(session, project.id, 1), 4, None)
    work_off(runtime, until="train")
    assert rows_of(runtime, project)[0].state == "running"
    with runtime.db.reading() as session:
        assert session.get_one(Job, first.id).state == "succeeded"
        assert len(session.scalars(select(Image).where(Image.job_id == first.id)).all()) == 5


def test_what_is_drawn_while_the_scoring_fails_is_kept_for_the_retry(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        asked = rounds.ask_for_more(session, rounds.get(session, project.id, 1), 5, None)
        row = session.get_one(Project, project.id)
        row.curation = "auto"
        rounds.follow_curation(session, row)
        scoring = session.scalars(select(Job).where(Job.kind == "score")).one()
    held, scorer = claim(runtime, asked), claim(runtime, scoring, "cpu@one")
    assert held is not None
    assert scorer is not None
    with runtime.transaction() as session:
        error = {"code": "internal", "message": "x", "retryable": True}
        rounds.job_ended_badly(session, jobs.fail(session, scorer, error))
    with runtime.transaction() as session:
        jobs.succeed(session, held, result_of(held))
    with runtime.transaction() as session:
        assert len(images.pending(session, rounds.get(session, project.id, 1).id)) == 53
        rounds.retry(session, session.get_one(Project, project.id))


def test_a_round_that_is_finished_takes_no_more(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        asked = rounds.ask_for_more(session, lap, 5, None)
        rounds.finish(session, lap, accept_fewer=True)
    with runtime.db.reading() as session:
        assert session.get_one(Job, asked.id).state == "cancelled"
    assert rows_of(runtime, project)[1][0].state == "completed"


def test_an_auto_curation_also_scores_later_candidates(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        rounds.ask_for_more(session, rounds.get(session, project.id, 1), 5, None)
        row.curation = "auto"
        rounds.follow_curation(session, row)
    work_off(runtime, taken=1, until="train")
    with runtime.db.reading() as session:
        lap = rounds.get(session, project.id, 1)
        assert images.pending(session, lap.id) == []
        assert lap.generations > 2


@pytest.mark.parametrize("ends", ["cancelled", "succeeded"])
def test_a_cancelled_scoring_decides_nothing(runtime: Runtime, project: Project, ends: str) -> None:
    start(runtime, project)
    work_off(runtime, until="score")
    held = claim(runtime, open_job(runtime, project), "cpu@one")
    assert held is not None
    with runtime.transaction() as session:
        rounds.ask_for_more(session, rounds.get(session, project.id, 1), 4, None)
    work_off(runtime, until="score")
    with runtime.transaction() as session:
        if ends == "cancelled":
            rounds.job_ended_badly(session, jobs.stop(session, held))
        else:
            jobs.succeed(session, held, result_of(held))
    row, laps = rows_of(runtime, project)
    assert (row.state, laps[0].state) == ("running", "curating")
    with runtime.db.reading() as session:
        assert len(images.pending(session, laps[0].id)) == 52


def test_when_too_few_are_good_the_round_draws_more_and_then_calls_a_person(runtime: Runtime, project: Project) -> None:
    start(runtime, project)
    work_off(runtime, taken=1)
    row, laps = rows_of(runtime, project)
    assert row.state == "running"
    assert laps[0].state == "curating"
    assert laps[0].generations == 3
    assert "pictures are missing" in (laps[0].needs_attention or "")
    assert story(runtime, project).count("round.attention_needed") == 1


def test_a_failed_job_says_why_and_its_stage_can_be_tried_again(runtime: Runtime, project: Project) -> None:
    start(runtime, project)
    job = open_job(runtime, project)
    held = claim(runtime, job)
    assert held is not None
    error = {"code": "nan_loss", "message": "the loss is not a number", "retryable": True}
    with runtime.transaction() as session:
        jobs.save_checkpoint(session, held, {"step": 50, "kept": []})
        rounds.job_ended_badly(session, jobs.fail(session, held, error))
    row, laps = rows_of(runtime, project)
    assert (row.state, laps[0].state) == ("failed", "failed")
    assert row.error == laps[0].error == error
    assert story(runtime, project)[-2:] == ["round.failed", "project.failed"]
    with runtime.transaction() as session:
        rounds.retry(session, session.get_one(Project, project.id))
    assert open_job(runtime, project).checkpoint == {"step": 50, "kept": []}
    work_off(runtime)
    assert rows_of(runtime, project)[0].state == "completed"


def test_a_retry_does_what_failed_last_whatever_the_clocks_say(runtime: Runtime, project: Project) -> None:
    """Of two API hosts or workers, one may run an hour ahead."""
    start(runtime, project)
    work_off(runtime, until="generate")
    failed = claim(runtime, open_job(runtime, project))
    assert failed is not None
    error = {"code": "gpu_oom", "message": "too large", "retryable": True}
    with runtime.transaction() as session:
        rounds.job_ended_badly(session, jobs.fail(session, failed, error))
        training = session.scalars(select(Job).where(Job.round_id == failed.round_id, Job.kind == "train")).one()
        training.created_at += timedelta(hours=1)
    with runtime.transaction() as session:
        rounds.retry(session, session.get_one(Project, project.id))
    again = open_job(runtime, project)
    assert (again.kind, again.inputs) == ("generate", failed.inputs)


def test_a_training_that_lost_a_picture_is_tried_again_without_it(runtime: Runtime, project: Project) -> None:
    start(runtime, project)
    held = claim(runtime, open_job(runtime, project))
    assert held is not None
    error = {"code": "object_missing", "message": "a picture is gone", "retryable": True}
    with runtime.transaction() as session:
        jobs.save_checkpoint(session, held, {"step": 50, "kept": []})
        rounds.job_ended_badly(session, jobs.fail(session, held, error))
        lost = images.dataset(session, project.id)[0]
        lost.state, lost.decision = "missing", Decision.REJECTED
    with runtime.transaction() as session:
        rounds.retry(session, session.get_one(Project, project.id))
    again = open_job(runtime, project)
    assert lost.id not in {entry["image_id"] for entry in again.inputs["dataset"]}
    assert (len(again.inputs["dataset"]), again.checkpoint) == (3, None)
    assert rows_of(runtime, project)[1][0].dataset == kinds.TRAIN.inputs_of(again).dataset


def test_a_lost_picture_is_not_accepted(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        lost = images.pending(session, lap.id)[0]
        lost.state, lost.decision = "missing", Decision.REJECTED
        session.flush()
        with pytest.raises(Conflict, match="is missing from the store"):
            images.change(session, lost, {"decision": "accepted"})
        with pytest.raises(Conflict, match="is missing from the store"):
            rounds.decide_all(session, lap, {lost.id: Decision.ACCEPTED})


def test_scoring_that_failed_is_not_tried_again_once_a_person_curates(runtime: Runtime, project: Project) -> None:
    fail_scoring(runtime, project)
    change_curation(runtime, project, "manual")
    with runtime.transaction() as session:
        rounds.retry(session, session.get_one(Project, project.id))
    row, laps = rows_of(runtime, project)
    assert (row.state, laps[0].state) == ("running", "curating")
    with runtime.db.reading() as session:
        assert not session.scalars(select(Job).where(Job.state.in_(jobs.OPEN_STATES))).all()


def test_scoring_that_failed_is_tried_again_on_what_is_undecided_now(runtime: Runtime, project: Project) -> None:
    fail_scoring(runtime, project)
    with runtime.transaction() as session:
        gone = images.pending(session, rounds.get(session, project.id, 1).id)[0]
        gone.state, gone.decision = "missing", Decision.REJECTED
    with runtime.transaction() as session:
        rounds.retry(session, session.get_one(Project, project.id))
    again = open_job(runtime, project)
    assert again.kind == "score"
    assert gone.id not in {each["id"] for each in again.inputs["candidates"]}


def fail_scoring(runtime: Runtime, project: Project) -> None:
    start(runtime, project)
    work_off(runtime, until="score")
    held = claim(runtime, open_job(runtime, project), "cpu@one")
    assert held is not None
    with runtime.transaction() as session:
        error = {"code": "object_missing", "message": "a picture is gone", "retryable": True}
        rounds.job_ended_badly(session, jobs.fail(session, held, error))


@pytest.mark.parametrize("cancelled", ["waiting", "running"])
def test_a_round_whose_scoring_is_cancelled_ends_at_once(runtime: Runtime, project: Project, cancelled: str) -> None:
    start(runtime, project)
    work_off(runtime, until="score")
    scoring = open_job(runtime, project)
    held = claim(runtime, scoring, "cpu@one") if cancelled == "running" else None
    with runtime.transaction() as session:
        rounds.cancel_job(session, session.get_one(Job, scoring.id))
    assert rows_of(runtime, project)[0].state == "failed"
    with runtime.transaction() as session:
        rounds.retry(session, session.get_one(Project, project.id))
    if held:
        with runtime.transaction() as session:
            rounds.job_ended_badly(session, jobs.stop(session, held))
    work_off(runtime)
    assert rows_of(runtime, project)[0].state == "completed"


def test_a_large_gap_is_filled_in_jobs_of_a_bounded_size(runtime: Runtime, user: User) -> None:
    with runtime.transaction() as session:
        plan = {"rounds": [{"kind": "style", "target": 1000, "candidates_per_pick": 10}, {"kind": "character"}]}
        project = make_project(session, user, plan=plan)
    start(runtime, project)
    work_off(runtime, until="generate")
    assert len(open_job(runtime, project).inputs["pictures"]) == 200


def test_a_cancelled_project_stops_everywhere_and_late_results_change_nothing(
    runtime: Runtime, project: Project
) -> None:
    start(runtime, project)
    held = claim(runtime, open_job(runtime, project))
    assert held is not None
    with runtime.transaction() as session:
        projects.cancel(session, session.get_one(Project, project.id))
        projects.cancel(session, session.get_one(Project, project.id))
    with runtime.transaction() as session:
        jobs.succeed(session, held, result_of(held))
    row, laps = rows_of(runtime, project)
    assert row.state == "cancelled"
    assert {lap.state for lap in laps} == {"cancelled"}
    assert story(runtime, project).count("project.cancelled") == 1


def test_a_completed_project_is_reopened_with_another_round(runtime: Runtime, project: Project) -> None:
    start(runtime, project)
    work_off(runtime)
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        projects.add_round(session, row, {"kind": "character"}, runtime.base_models)
    work_off(runtime)
    row, laps = rows_of(runtime, project)
    assert row.state == "completed"
    assert [lap.number for lap in laps] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"trigger_word": "solo"}, "trigger_is_a_tag"),
        ({"trigger_word": "fox ears"}, "trigger_is_a_tag"),
        ({"feature_tags": ["solo"]}, "tag_in_both"),
        ({"base_model": "sdxl-that-nobody-installed"}, "unknown_base_model"),
    ],
)
def test_impossible_words_are_refused(runtime: Runtime, user: User, given: dict[str, Any], error: str) -> None:
    with pytest.raises(Invalid) as raised, runtime.transaction() as session:
        make_project(session, user, **given)
    assert raised.value.code == error


def test_an_old_blank_trigger_word_does_not_block_other_changes(runtime: Runtime, project: Project) -> None:
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        row.trigger_word = " "
        projects.change(session, row, {"name": "another"}, runtime.base_models)
    assert rows_of(runtime, project)[0].name == "another"


def test_a_start_needs_four_references_and_her_features(runtime: Runtime, user: User) -> None:
    with pytest.raises(Conflict, match="needs 4"), runtime.transaction() as session:
        projects.start(session, make_project(session, user, references=3))
    with pytest.raises(Invalid, match="no feature tags"), runtime.transaction() as session:
        projects.start(session, make_project(session, user, feature_tags=[]))


def test_someone_elses_lora_does_not_exist(runtime: Runtime, user: User, project: Project) -> None:
    start(runtime, project)
    work_off(runtime)
    with runtime.transaction() as session:
        from tests.domain import make_user

        stranger = make_project(session, make_user(session, "bob"))
        lora_id = rounds.get(session, project.id, 3).lora_id
        with pytest.raises(Exception, match="there is no LoRA"):
            loras.of_project(session, stranger, [{"lora_id": lora_id}], runtime.base_models)


def test_events_of_one_project_have_no_gap_whoever_writes_them(tmp_path: Any) -> None:
    import threading

    runtime = make_runtime(tmp_path)
    with runtime.transaction() as session:
        from tests.domain import make_user

        project = make_project(session, make_user(session), references=0)

    def write() -> None:
        for _ in range(10):
            with runtime.transaction() as session:
                events.record(session, session.get_one(Project, project.id), "image.added", image_id="x")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with runtime.db.reading() as session:
        seqs = list(session.scalars(select(Event.seq).where(Event.project_id == project.id).order_by(Event.seq)))
    assert seqs == list(range(1, 41))


def test_new_features_reach_the_tags_of_the_references(runtime: Runtime, project: Project) -> None:
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        projects.change(session, row, {"feature_tags": ["cat ears", "blue eyes"]}, runtime.base_models)
        tags = [image.tags for image in session.scalars(select(Image).where(Image.project_id == project.id))]
    assert tags == [["cat ears", "blue eyes", "looking at viewer", "full body"]] * 4


def change_curation(runtime: Runtime, project: Project, curation: str) -> None:
    with runtime.transaction() as session:
        row = session.get_one(Project, project.id)
        projects.change(session, row, {"curation": curation}, runtime.base_models)


def test_a_waiting_round_is_decided_when_curation_becomes_auto(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    change_curation(runtime, project, "auto")
    work_off(runtime)
    assert rows_of(runtime, project)[0].state == "completed"


def test_a_decided_round_continues_when_curation_becomes_auto(runtime: Runtime, project: Project) -> None:
    start(runtime, project, curation="manual")
    work_off(runtime)
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        rounds.decide_all(session, lap, {image.id: Decision.REJECTED for image in images.pending(session, lap.id)})
    change_curation(runtime, project, "auto")
    assert open_job(runtime, project).kind == "generate"


@pytest.mark.parametrize("undecided", [True, False])
def test_a_cancelled_scoring_may_end_after_its_successor(runtime: Runtime, project: Project, undecided: bool) -> None:
    start(runtime, project)
    work_off(runtime, until="score")
    held = claim(runtime, open_job(runtime, project), "cpu@one")
    assert held is not None
    change_curation(runtime, project, "manual")
    with runtime.transaction() as session:
        lap = rounds.get(session, project.id, 1)
        lap.generations = 3
        decided = {image.id: Decision.REJECTED for image in images.pending(session, lap.id)[undecided:]}
        rounds.decide_all(session, lap, decided)
    change_curation(runtime, project, "auto")
    work_off(runtime)
    assert rows_of(runtime, project)[1][0].needs_attention
    with runtime.transaction() as session:
        rounds.job_ended_badly(session, jobs.stop(session, held))
    assert rows_of(runtime, project)[0].state == "running"


@pytest.mark.parametrize("ends", ["unclaimed", "cancelled", "succeeded"])
def test_a_person_who_takes_over_is_not_decided_for(runtime: Runtime, project: Project, ends: str) -> None:
    start(runtime, project)
    work_off(runtime, until="score")
    scoring = open_job(runtime, project)
    held = claim(runtime, scoring, "cpu@one") if ends != "unclaimed" else None
    change_curation(runtime, project, "manual")
    with runtime.transaction() as session:
        if ends == "cancelled":
            assert held is not None
            rounds.job_ended_badly(session, jobs.stop(session, held))
        elif ends == "succeeded":
            assert held is not None
            jobs.succeed(session, held, result_of(held))
    work_off(runtime)
    row, laps = rows_of(runtime, project)
    assert (row.state, laps[0].state) == ("running", "curating")
    with runtime.db.reading() as session:
        assert len(images.pending(session, laps[0].id)) == 48
