"""Clients can't overwrite changes that they have not seen."""

from __future__ import annotations

import io
import threading

from tests.api.bodies import PROJECT, upload
from tests.api.conftest import ON_BOTH
from tests.factories import make_curating, png

pytestmark = ON_BOTH


def put_back(caller, image_id, if_match):
    file = {"file": (io.BytesIO(png(color="red")), "x.png")}
    return caller.change("POST", f"/v1/images/{image_id}/versions", None, if_match, data=file)


def test_a_change_must_say_what_it_is_based_on(ada):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}"
    answer = ada.patch(path, {"name": "New"}, if_match=None)
    assert (answer.status_code, answer.json["code"]) == (428, "precondition_required")


def test_a_stale_change_is_refused(ada):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}"
    seen = ada.get(path).headers["ETag"]
    changed = ada.patch(path, {"name": "New"}, if_match=seen)
    assert changed.headers["ETag"] != seen
    stale = ada.patch(path, {"name": "Newer"}, if_match=seen)
    assert (stale.status_code, stale.json["code"]) == (412, "precondition_failed")
    assert ada.patch(path, {"name": "Newer"}, if_match=changed.headers["ETag"]).status_code == 200
    assert ada.get(path).json["name"] == "Newer"


def test_the_version_after_a_change_is_the_one_that_is_read_next(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id, candidates=0)
    path = f"/v1/projects/{project.id}"
    changed = ada.patch(path, {"curation": "auto"})  # more are drawn, and the project's events tell of it
    assert changed.headers["ETag"] == ada.get(path).headers["ETag"]
    assert ada.patch(path, {"name": "New"}, if_match=changed.headers["ETag"]).status_code == 200


def test_an_unchanged_resource_is_not_sent_again(ada):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    image = upload(ada, project_id)
    path = f"/v1/images/{image.json['id']}"
    answer = ada.get(path, headers={"If-None-Match": image.headers["ETag"]})
    assert (answer.status_code, answer.data) == (304, b"")


def test_a_curation_sees_every_decision_of_others(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    path = f"/v1/projects/{project.id}/rounds/1"
    seen = ada.get(path)
    first, second, _ = seen.json["decisions"]["pending"]
    assert ada.put(f"{path}/decisions", {"accepted": [first]}, if_match=seen.headers["ETag"]).status_code == 200
    swapped = ada.put(f"{path}/decisions", {"accepted": [second]}, if_match=seen.headers["ETag"])
    assert swapped.status_code == 412
    stale_finish = ada.change("POST", f"{path}/finish", {"accept_fewer": True}, if_match=seen.headers["ETag"])
    assert stale_finish.status_code == 412
    assert ada.change("POST", f"{path}/finish", {"accept_fewer": True}, if_match=None).status_code == 428


def test_of_two_edits_of_one_picture_the_second_is_refused(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    image = ada.get(f"/v1/projects/{project.id}/images?role=candidate").json["items"][0]
    seen = ada.get(f"/v1/images/{image['id']}").headers["ETag"]
    statuses = [put_back(ada, image["id"], if_match).status_code for if_match in (None, seen, seen)]
    assert statuses == [428, 201, 412]
    assert ada.get(f"/v1/projects/{project.id}/rounds/1").json["counts"]["accepted"] == 1


def test_a_repeated_finish_gets_the_same_answer(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    path = f"/v1/projects/{project.id}/rounds/1"
    given = {"if_match": ada.get(path).headers["ETag"], "headers": {"Idempotency-Key": "once"}}
    answers = [ada.change("POST", f"{path}/finish", {"accept_fewer": True}, **given) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[1].headers["Idempotent-Replayed"] == "true"


def test_of_two_changes_at_once_one_is_refused(app, ada):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}"
    seen = ada.get(path).headers["ETag"]
    statuses = []

    def send(name: str) -> None:
        headers = {"Authorization": f"Bearer {ada.key}", "If-Match": seen}
        statuses.append(app.test_client().patch(path, json={"name": name}, headers=headers).status_code)

    threads = [threading.Thread(target=send, args=(name,)) for name in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 412, 412, 412]


def test_metadata_named_url_is_part_of_the_version(ada):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}"
    links = [{"url": f"https://{name}.example", "expires_at": "never"} for name in ("a", "b")]
    first, second = (ada.patch(path, {"metadata": link}).headers["ETag"] for link in links)
    assert first != second


def test_a_read_of_a_version_that_is_gone_says_so(ada):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}"
    gone = ada.get(path, headers={"If-Match": '"0"'})
    assert (gone.status_code, gone.json["code"]) == (412, "precondition_failed")
    assert ada.get(path, headers={"If-Match": "*"}).status_code == 200
    assert ada.get(path, headers={"If-Match": ada.get(path).headers["ETag"]}).status_code == 200
