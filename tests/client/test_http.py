"""Patience, one key for all tries of a write, pages, problems and checked downloads."""

from __future__ import annotations

import hashlib

import pytest

from bootlora import ApiError, Bootlora, http
from tests.client.service import Answer, Service, busy


def test_the_key_is_sent_as_a_bearer(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({"name": "me"})]
    assert bootlora.me() == {"name": "me"}
    assert service.requests[0].headers["Authorization"] == "Bearer btl_test"
    assert service.requests[0].path == "/v1/me"


def test_a_netrc_does_not_replace_the_key(
    bootlora: Bootlora, service: Service, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    service.script = [Answer({})]
    bootlora.me()
    assert service.requests[0].headers["Authorization"] == "Bearer btl_test"


def test_a_busy_service_is_asked_again_with_the_same_idempotency_key(bootlora: Bootlora, service: Service) -> None:
    service.script = [busy(503), busy(429), Answer(drop=True), Answer({"id": "prj_1"}, 201)]
    assert bootlora.projects.create(name="Eiei", trigger_word="eiei21girl")["id"] == "prj_1"
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert len(service.requests) == 4
    assert len(keys) == 1


def test_an_answer_that_breaks_off_is_asked_for_again(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({"name": "me"}, breaks=True), Answer({"name": "me"})]
    assert bootlora.me() == {"name": "me"}


def test_what_an_unheard_try_has_deleted_is_deleted(bootlora: Bootlora, service: Service) -> None:
    gone = Answer({"code": "not_found", "detail": "there is no project prj_1"}, 404)
    service.script = [Answer(drop=True), gone, busy(503), gone]
    bootlora.projects.delete("prj_1")
    with pytest.raises(ApiError, match="there is no project"):
        bootlora.projects.delete("prj_1")


def test_what_an_unheard_try_may_have_changed_is_told(bootlora: Bootlora, service: Service) -> None:
    changed = Answer({"code": "precondition_failed", "detail": "this has changed"}, 412)
    service.script = [Answer(drop=True), changed]
    with pytest.raises(ApiError, match="an earlier try that got no answer may have changed it"):
        bootlora.rounds.decide("prj_1", 1, accepted=["img_1"], etag='"6"')


def test_a_full_queue_is_told_at_once(bootlora: Bootlora, service: Service) -> None:
    full = {"code": "too_many_queued_jobs", "detail": "20 of your jobs are waiting"}
    service.script = [Answer(full, 429, {"Retry-After": "60"})]
    with pytest.raises(ApiError, match="20 of your jobs are waiting"):
        bootlora.projects.start("prj_1")


@pytest.mark.parametrize("said", ["", "soon", "-5", "²", "0" * 400, "Thu, 01 Jan 1970 00:00:00 -0000", "nan"])
def test_a_retry_after_that_says_nothing_sensible_breaks_nothing(
    bootlora: Bootlora, service: Service, said: str
) -> None:
    service.script = [Answer({}, 503, {"Retry-After": said.encode().decode("latin-1")}), Answer({"name": "me"})]
    assert bootlora.me() == {"name": "me"}


@pytest.mark.parametrize("said", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_nobody_is_waited_for_longer_than_a_minute(said: str) -> None:
    assert 60 <= http._pause(said, 0) < 61


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_key_follows_no_redirect(bootlora: Bootlora, service: Service, method: str) -> None:
    service.script = [Answer({}, 301, {"Location": "https://elsewhere.example/v1/projects/prj_1"})]
    with pytest.raises(ApiError, match=r"points to https://elsewhere\.example") as caught:
        bootlora.projects.get("prj_1") if method == "GET" else bootlora.projects.start("prj_1")
    assert caught.value.code == "moved"
    assert len(service.requests) == 1


def test_a_page_where_the_service_should_be_is_told(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer(b"<html>Log in</html>"), Answer(b"<html>Log in</html>")]
    for act in (bootlora.me, lambda: bootlora.projects.start("prj_1")):
        with pytest.raises(ApiError, match="is not Bootlora"):
            act()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a b", "http://[::1", "http://a:x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ApiError, match="no address of a service"):
        Bootlora(url, "btl_test")


@pytest.mark.parametrize("key", ["", "btl_a\nbtl_b", "btl_schlüssel", "btl a"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ApiError, match="no API key"):
        Bootlora("http://127.0.0.1:8000", key)


def test_around_an_address_and_a_key_there_may_be_space(service: Service) -> None:
    service.script = [Answer({"name": "me"})]
    assert Bootlora(f" {service.url}/ \n", "btl_test\n").me() == {"name": "me"}


def test_two_writes_have_two_keys(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({}), Answer({})]
    bootlora.projects.start("prj_1")
    bootlora.projects.start("prj_1")
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 2


def test_a_try_that_is_still_under_way_is_waited_for(bootlora: Bootlora, service: Service) -> None:
    service.script = [busy(409), Answer({"id": "prj_1"})]
    service.script[0].body = {"code": "idempotency_in_progress", "detail": "still at it"}
    assert bootlora.projects.start("prj_1")["id"] == "prj_1"


def test_a_service_that_stays_busy_is_given_up(bootlora: Bootlora, service: Service) -> None:
    service.answer = lambda request: busy(503)
    with pytest.raises(ApiError) as caught:
        bootlora.me()
    assert caught.value.status == 503
    assert len(service.requests) == 6


def test_a_service_that_is_not_there_is_one_sentence(bootlora: Bootlora, service: Service) -> None:
    service.close()
    with pytest.raises(ApiError, match="nothing answers at") as caught:
        bootlora.me()
    assert caught.value.code == "unreachable"


def test_a_problem_has_its_code_and_sentence(bootlora: Bootlora, service: Service) -> None:
    errors = [{"pointer": "/trigger_word", "detail": "is already a tag"}]
    problem = {"code": "trigger_is_a_tag", "detail": "choose a word that means nothing yet", "errors": errors}
    service.script = [Answer(problem, 422)]
    with pytest.raises(ApiError) as caught:
        bootlora.projects.create(name="Eiei", trigger_word="fox ears")
    assert (caught.value.status, caught.value.code, caught.value.errors) == (422, "trigger_is_a_tag", errors)
    assert str(caught.value) == "choose a word that means nothing yet"


def test_an_error_that_is_no_problem_is_told_too(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer(b"<html>", 500)]
    with pytest.raises(ApiError, match="the service answered 500"):
        bootlora.me()


def test_lists_are_read_to_their_end(bootlora: Bootlora, service: Service) -> None:
    service.script = [
        Answer({"items": [{"id": "a"}, {"id": "b"}], "has_more": True, "next_cursor": "b+/="}),
        Answer({"items": [{"id": "c"}], "has_more": False, "next_cursor": None}),
    ]
    assert [project["id"] for project in bootlora.projects.all()] == ["a", "b", "c"]
    assert service.requests[1].path.endswith("cursor=b%2B%2F%3D")


def test_a_change_is_based_on_what_was_read(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({"id": "prj_1"}, headers={"ETag": '"7"'}), Answer({"id": "prj_1"})]
    bootlora.projects.change("prj_1", name="Eiei")
    assert [request.method for request in service.requests] == ["GET", "PATCH"]
    assert service.requests[1].headers["If-Match"] == '"7"'


def test_an_edit_takes_the_place_of_what_was_read(bootlora: Bootlora, service: Service, tmp_path) -> None:
    (tmp_path / "edited.png").write_bytes(b"edited")
    service.script = [Answer({"id": "img_1"}, headers={"ETag": '"7"'}), Answer({"id": "img_2"}, 201)]
    assert bootlora.images.put_back("img_1", tmp_path / "edited.png")["id"] == "img_2"
    assert service.requests[1].headers["If-Match"] == '"7"'
    assert b"edited" in service.requests[1].body


def test_a_change_can_be_based_on_an_older_reading(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({"code": "precondition_failed", "detail": "changed meanwhile"}, 412)]
    with pytest.raises(ApiError) as caught:
        bootlora.rounds.decide("prj_1", 1, accepted=["img_1"], etag='"6"')
    assert caught.value.code == "precondition_failed"


def test_a_download_is_checked_and_carries_no_key(bootlora: Bootlora, service: Service, tmp_path) -> None:
    service.script = [Answer(drop=True), Answer(b"damaged"), Answer(b"whole")]
    image = {"url": f"{service.url}/bucket/key?signed", "sha256": hashlib.sha256(b"whole").hexdigest()}
    file = bootlora.images.save(image, tmp_path / "new" / "picture.png")
    assert file.read_bytes() == b"whole"
    assert all("Authorization" not in request.headers for request in service.requests)


def test_without_the_right_to_download_it_says_so(bootlora: Bootlora, tmp_path) -> None:
    with pytest.raises(ApiError, match="artifacts:read"):
        bootlora.images.save({"url": None, "sha256": "0" * 64}, tmp_path / "picture.png")


@pytest.mark.parametrize("name", ["..", "../../x.safetensors", "/etc/x.safetensors", "C:\\x.safetensors", "a/b", ""])
def test_a_file_goes_into_its_folder_whatever_it_is_called(
    bootlora: Bootlora, service: Service, tmp_path, name: str
) -> None:
    service.script = [Answer(b"whole")]
    file = {"url": f"{service.url}/key", "sha256": hashlib.sha256(b"whole").hexdigest(), "filename": name}
    saved = bootlora.loras.save({"files": {"kohya": file}}, "kohya", tmp_path / "lora")
    assert saved.parent == tmp_path / "lora"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [saved]


def test_a_download_that_stays_damaged_leaves_nothing(bootlora: Bootlora, service: Service, tmp_path) -> None:
    service.answer = lambda request: Answer(b"damaged")
    with pytest.raises(ApiError, match="did not arrive as it was sent"):
        bootlora.http.save(f"{service.url}/key", tmp_path / "lora.safetensors", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_is_multipart_and_can_be_sent_again(bootlora: Bootlora, service: Service, tmp_path) -> None:
    (tmp_path / "her.png").write_bytes(b"\x89PNG and so on")
    service.script = [busy(503), Answer({"id": "img_1"}, 201)]
    bootlora.images.upload("prj_1", tmp_path / "her.png", view="front", tags=["smile", "arms up"])
    first, second = service.requests
    assert second.headers["Content-Type"].startswith("multipart/form-data")
    for request in (first, second):
        assert b"\x89PNG and so on" in request.body
        assert b'name="view"' in request.body
        assert b"arms up" in request.body


def test_a_job_is_waited_for(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({"id": "job_1", "state": state}) for state in ("queued", "running", "succeeded")]
    assert bootlora.jobs.wait("job_1")["state"] == "succeeded"
    assert service.requests[0].headers["Prefer"] == "wait=20"


def test_a_failed_job_says_why(bootlora: Bootlora, service: Service) -> None:
    error = {"code": "gpu_oom", "message": "out of memory; use a smaller batch", "retryable": True}
    service.script = [Answer({"id": "job_1", "state": "failed", "error": error})]
    with pytest.raises(ApiError, match="use a smaller batch") as caught:
        bootlora.jobs.wait("job_1")
    assert caught.value.code == "gpu_oom"
