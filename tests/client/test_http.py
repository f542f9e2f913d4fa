"""Retries, idempotency keys, pages, problems and checked downloads of the client."""

from __future__ import annotations

import hashlib
import time

import pytest

from bootlora import ApiError, Bootlora, saving
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


@pytest.mark.parametrize(
    "odd",
    ["", "-5", "nan", "1e9", "\xb2", "soon", "Fri, 99 Nov 2026 25:00:00 GMT", "Fri, 27 Nov 2026 10:00 -0000"],
)
def test_an_odd_retry_after_is_as_good_as_none(bootlora: Bootlora, service: Service, odd: str) -> None:
    service.script = [busy(503, **{"Retry-After": odd}), Answer({"name": "me"})]
    begun = time.monotonic()
    assert bootlora.me() == {"name": "me"}
    assert time.monotonic() - begun < 1


def test_a_date_that_is_over_is_waited_for_no_more(bootlora: Bootlora, service: Service) -> None:
    service.script = [busy(503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), Answer({"name": "me"})]
    assert bootlora.me() == {"name": "me"}


@pytest.mark.parametrize("far", ["86400", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_who_says_much_later_is_not_waited_for(bootlora: Bootlora, service: Service, far: str) -> None:
    service.script = [busy(503, **{"Retry-After": far})]
    with pytest.raises(ApiError, match="come back later"):
        bootlora.me()


@pytest.mark.parametrize("code", ["too_many_queued_jobs", "too_many_streams", "too_many"])
def test_a_cap_is_told_at_once(bootlora: Bootlora, service: Service, code: str) -> None:
    service.script = [Answer({"code": code, "detail": "20 of your jobs are waiting"}, 429, {"Retry-After": "60"})]
    with pytest.raises(ApiError, match="20 of your jobs are waiting"):
        bootlora.projects.start("prj_1")
    assert len(service.requests) == 1


@pytest.mark.parametrize("body", [{"code": "rate_limited", "detail": "come back in 0 seconds"}, b"<html>"])
def test_a_rate_limit_is_waited_for(bootlora: Bootlora, service: Service, body: object) -> None:
    service.script = [Answer(body, 429, {"Retry-After": "0"}), Answer({"name": "me"})]
    assert bootlora.me() == {"name": "me"}


def test_a_service_that_is_not_there_is_one_sentence(bootlora: Bootlora, service: Service) -> None:
    service.close()
    with pytest.raises(ApiError, match="does not answer; is the service running") as caught:
        bootlora.me()
    assert caught.value.code == "unreachable"


def test_an_answer_that_breaks_off_is_asked_for_again(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({"name": "me"}, cut=True), Answer({"name": "me"})]
    assert bootlora.me() == {"name": "me"}


def test_a_write_whose_answer_breaks_off_is_still_done_once(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({"id": "prj_1"}, cut=True), Answer({"id": "prj_1"})]
    bootlora.projects.start("prj_1")
    first, second = service.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_answers_that_always_break_off_are_one_sentence(bootlora: Bootlora, service: Service) -> None:
    service.answer = lambda request: Answer({"name": "me"}, cut=True)
    with pytest.raises(ApiError, match="broke off") as caught:
        bootlora.me()
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(bootlora: Bootlora, service: Service, status: int) -> None:
    service.answer = lambda request: Answer({}, status, {"Location": "https://elsewhere.example/lora/v1/me?x=1"})
    for ask in (bootlora.me, lambda: bootlora.projects.start("prj_1"), lambda: bootlora.projects.delete("prj_1")):
        with pytest.raises(ApiError, match="redirects to https://elsewhere") as caught:
            ask()
        assert str(caught.value).endswith("set the URL to https://elsewhere.example/lora")
        assert (caught.value.status, caught.value.code) == (status, "moved")
    assert len(service.requests) == 3


def test_a_redirect_within_the_service_is_not_followed_either(bootlora: Bootlora, service: Service) -> None:
    service.script = [Answer({}, 308, {"Location": "/lora/v1/me"})]
    with pytest.raises(ApiError, match=f"set the URL to {service.url}/lora"):
        bootlora.me()


def test_a_download_may_be_redirected(bootlora: Bootlora, service: Service, tmp_path) -> None:
    service.script = [Answer(b"", 307, {"Location": f"{service.url}/other-region"}), Answer(b"whole")]
    digest = hashlib.sha256(b"whole").hexdigest()
    assert bootlora.http.save(f"{service.url}/key", tmp_path / "file", digest).read_bytes() == b"whole"
    assert all("Authorization" not in request.headers for request in service.requests)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "//localhost", "ftp://localhost", "http://", "http://a b", "http://a/?b", "http://a#b"],
)
def test_a_url_that_is_none_is_told_so(url: str) -> None:
    with pytest.raises(ApiError, match="is not a service's URL; write for example http") as caught:
        Bootlora(url, "btl_test")
    assert caught.value.code == "bad_url"


@pytest.mark.parametrize("url", ["http://a..b", "http://" + "a" * 70, "http://*", "http://[", "http://a:b/v1"])
def test_a_url_that_leads_nowhere_is_one_sentence(url: str) -> None:
    with pytest.raises(ApiError):
        Bootlora(url, "btl_test").projects.delete("prj_1")


@pytest.mark.parametrize("end", ["/", "/v1", "/v1/", " ", "//"])
def test_a_url_may_end_as_it_likes(service: Service, end: str) -> None:
    service.script = [Answer({})]
    Bootlora(service.url + end, "btl_test").me()
    assert service.requests[0].path == "/v1/me"


def test_a_url_may_have_a_path(service: Service) -> None:
    service.script = [Answer({})]
    Bootlora(service.url + "/lora/", "btl_test").me()
    assert service.requests[0].path == "/lora/v1/me"


@pytest.mark.parametrize(
    "key", ["", " ", "btl_\nsecret", "btl_secr\u00e9t", "btl_secret\u2026", "btl_ secret", "btl_\0"]
)
def test_a_key_that_is_none_is_told_so_and_not_shown(key: str) -> None:
    with pytest.raises(ApiError, match="the API key is empty or has") as caught:
        Bootlora("http://localhost", key)
    assert caught.value.code == "bad_key"
    assert "secr" not in str(caught.value)


def test_a_key_out_of_a_file_may_end_its_line(service: Service) -> None:
    service.script = [Answer({})]
    Bootlora(service.url, "btl_test\r\n").me()
    assert service.requests[0].headers["Authorization"] == "Bearer btl_test"


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"\xff", [], "up", None])
def test_an_answer_of_someone_else_is_told_so(bootlora: Bootlora, service: Service, body: object) -> None:
    service.answer = lambda request: Answer(body, headers={"Content-Type": "text/html"})
    host = service.url.removeprefix("http://")
    for ask in (bootlora.me, lambda: bootlora.projects.start("prj_1"), lambda: bootlora.projects.delete("prj_1")):
        with pytest.raises(ApiError, match=f"{host} answers, but it is not Bootlora") as caught:
            ask()
        assert caught.value.code == "not_bootlora"


def test_what_can_not_be_sent_is_one_sentence(bootlora: Bootlora) -> None:
    with pytest.raises(ApiError, match="can't send the request") as caught:
        bootlora.projects.change("prj_1", etag='"7"', plan=float("nan"))
    assert caught.value.code == "unsendable"


@pytest.mark.parametrize("errors", [7, "no", [{"message": "a"}, {"message": "b"}], ["a", "b"], {"a": "b", "c": "d"}])
def test_a_problem_of_someone_else_is_told_too(bootlora: Bootlora, service: Service, errors: object) -> None:
    service.script = [Answer({"detail": "no", "errors": errors}, 400)]
    with pytest.raises(ApiError) as caught:
        bootlora.me()
    assert str(caught.value) == "no"


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


@pytest.mark.parametrize("lost", [Answer(drop=True), Answer({}, cut=True), busy(504)])
def test_what_a_lost_try_has_deleted_is_deleted(bootlora: Bootlora, service: Service, lost: Answer) -> None:
    service.script = [lost, Answer({"code": "not_found", "detail": "there is no project prj_1"}, 404)]
    bootlora.projects.delete("prj_1")
    assert [request.method for request in service.requests] == ["DELETE", "DELETE"]


@pytest.mark.parametrize("before", [[], [busy(429)], [busy(503)]])
def test_what_was_never_there_is_not_deleted(bootlora: Bootlora, service: Service, before: list[Answer]) -> None:
    service.script = [*before, Answer({"code": "not_found", "detail": "there is no project prj_1"}, 404)]
    with pytest.raises(ApiError, match="there is no project"):
        bootlora.projects.delete("prj_1")


def test_a_change_that_a_lost_try_may_have_made_is_told_so(bootlora: Bootlora, service: Service) -> None:
    changed = Answer({"code": "precondition_failed", "detail": "changed meanwhile"}, 412)
    service.script = [Answer({"id": "prj_1"}, headers={"ETag": '"7"'}), Answer(drop=True), busy(503), changed]
    with pytest.raises(ApiError, match="may have been made; read the resource again") as caught:
        bootlora.projects.change("prj_1", name="Eiei")
    assert (caught.value.status, caught.value.code) == (412, "precondition_failed")


def test_a_change_of_someone_else_is_told_as_the_service_tells_it(bootlora: Bootlora, service: Service) -> None:
    service.script = [busy(429), Answer({"code": "precondition_failed", "detail": "changed meanwhile"}, 412)]
    with pytest.raises(ApiError, match=r"^changed meanwhile$"):
        bootlora.projects.change("prj_1", etag='"7"', name="Eiei")


def test_a_download_is_checked_and_carries_no_key(bootlora: Bootlora, service: Service, tmp_path) -> None:
    service.script = [Answer(drop=True), Answer(b"damaged"), Answer(b"whole")]
    image = {"url": f"{service.url}/bucket/key?signed", "sha256": hashlib.sha256(b"whole").hexdigest()}
    file = bootlora.images.save(image, tmp_path / "new" / "picture.png")
    assert file.read_bytes() == b"whole"
    assert all("Authorization" not in request.headers for request in service.requests)


@pytest.mark.parametrize("name", ["..", ".", "", "../../out", "/../../out", "/proc/out", "C:out", "..\\out", "a\0b"])
def test_no_name_of_the_service_leads_out_of_the_folder(
    bootlora: Bootlora, service: Service, tmp_path, name: str
) -> None:
    file = {"url": f"{service.url}/key", "sha256": hashlib.sha256(b"whole").hexdigest()}
    image = {"id": name, **file}
    answers = {"/v1/projects/prj_1": {"trigger_word": name}, "/v1/projects/prj_1/images": {"items": [image]}}
    service.answer = lambda request: Answer(answers.get(request.path.partition("?")[0], b"whole"))
    saving.pictures(bootlora, [image], tmp_path / "in" / "pictures")
    saving.lora(bootlora, {"files": {name: {"filename": name, **file}}}, tmp_path / "in" / "lora")
    saving.dataset(bootlora, "prj_1", {"dataset": [{"image_id": name, "captions": []}]}, tmp_path / "in" / "dataset")
    files = [each.relative_to(tmp_path).parts for each in tmp_path.rglob("*") if each.is_file()]
    assert sorted((*parts[:2], len(parts)) for parts in files) == [
        ("in", "dataset", 4),
        ("in", "dataset", 4),
        ("in", "lora", 4),
        ("in", "pictures", 3),
    ]
    assert not any(set("\\:") & set(part) for parts in files for part in parts)


def test_a_download_that_stays_damaged_leaves_nothing(bootlora: Bootlora, service: Service, tmp_path) -> None:
    service.answer = lambda request: Answer(b"damaged")
    with pytest.raises(ApiError, match="arrived damaged"):
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
