"""The sender survives every misbehaviour of a receiver, which is a real server on this machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.memory import peak_bytes
from shared import events, projects
from tests.domain import make_project, work_off
from tests.webhooks import receiver as hostile
from tests.webhooks.conftest import World
from tests.webhooks.receiver import Receiver, receiving, says, self_signed, server_tls
from workers.delivery import DeliverySender


def tell_once(world: World, url: str) -> dict:
    """Let something happen, try once, and give what the log says of it."""
    webhook_id, _ = world.listen(url)
    world.happen()
    world.send(until=lambda: bool(world.deliveries(webhook_id)[0].attempts) and world.sender.idle)
    return world.deliveries(webhook_id)[0].attempts[0]


def test_a_good_receiver_can_verify_what_it_gets(world: World, receiver: Receiver) -> None:
    webhook_id, secret = world.listen(receiver.url())
    world.happen(lora_id="lor_1")
    world.send()
    (request,) = receiver.at()
    event = request.verified(secret)
    assert event["type"] == "round.completed"
    assert event["data"]["lora_id"] == "lor_1"
    assert event["data"]["seq"] == 1
    assert request.headers["webhook-id"] == event["data"]["id"]
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == receiver.url("").removeprefix("http://")
    assert "x-forwarded-for" not in request.headers
    (delivery,) = world.deliveries(webhook_id)
    assert delivery.state == "delivered"
    assert delivery.attempts[0]["status"] == 200
    assert delivery.attempts[0]["answer"] == "ok"


def test_all_events_arrive_in_order(world: World, receiver: Receiver) -> None:
    _, secret = world.listen(receiver.url())
    world.happen(25)
    for _ in range(25):
        world.happen()
    world.send()
    assert [each.verified(secret)["data"]["seq"] for each in receiver.at()] == list(range(1, 51))
    assert receiver.most_open == 1


def test_the_events_of_a_project_arrive_without_a_gap(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = hostile.one_after_another(*[says(200)] * 5, says(500), says(200))
    _, secret = world.listen(receiver.url())
    with world.session() as session:
        project = make_project(session, world.user, name="whole")
        projects.start(session, project)
    work_off(world.runtime)
    world.send()
    with world.runtime.db.reading() as session:
        happened = [events.payload(each) for each in events.after(session, project.id, 0, 1000)]
    told = [each.verified(secret) for each in receiver.at()]
    assert len(told) == len(happened) + 1  # the one that met the 500 came twice
    once = {each["data"]["id"]: each for each in told if each["data"]["project_id"] == project.id}
    assert sorted(once.values(), key=lambda each: each["data"]["seq"]) == happened
    assert happened[-1]["type"] == "project.completed"
    assert {"round.training_started", "round.candidates_ready", "round.completed"} <= {
        each["type"] for each in happened
    }


def test_a_failed_try_is_repeated_with_the_same_id(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = hostile.one_after_another(says(500, b"sorry"), says(503), says(204, b""))
    webhook_id, secret = world.listen(receiver.url())
    world.happen()
    world.send()
    requests = receiver.at()
    assert len({each.headers["webhook-id"] for each in requests}) == 1
    assert len({each.body for each in requests}) == 1
    assert all(each.verified(secret) for each in requests)
    (delivery,) = world.deliveries(webhook_id)
    assert [each["status"] for each in delivery.attempts] == [500, 503, 204]
    assert delivery.attempts[0]["answer"] == "sorry"
    assert delivery.state == "delivered"
    assert world.webhook(webhook_id).failing_since is None


def test_when_the_list_is_used_up_the_delivery_is_listed_as_failed(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = says(500)
    webhook_id, _ = world.listen(receiver.url())
    world.happen()
    world.send()
    (delivery,) = world.deliveries(webhook_id)
    assert delivery.state == "failed"
    assert delivery.tries == len(receiver.at()) == 1 + len(world.settings.webhook_retry_seconds)
    assert world.webhook(webhook_id).disabled_at is None


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(world: World, receiver: Receiver, status: int) -> None:
    with receiving() as inside:
        receiver.answers["/hook"] = says(status, Location=inside.url("/metadata"))
        tried = tell_once(world, receiver.url())
        assert tried["status"] == status
        assert "redirect" in tried["error"]
        assert inside.received == []


def test_an_unexpected_error_is_a_failed_try(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr("workers.delivery.Request._exchange", broken)
    tried = tell_once(world, receiver.url())
    assert "could not be made" in tried["error"]
    assert "foreseen" not in tried["error"]


def test_a_redirect_to_a_metadata_address_is_not_followed(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = says(307, Location="http://169.254.169.254/latest/meta-data/")
    tried = tell_once(world, receiver.url())
    assert tried["status"] == 307
    assert tried["seconds"] < 1


def test_410_disables_the_endpoint(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = says(410)
    webhook_id, _ = world.listen(receiver.url())
    world.happen(3)
    world.send()
    assert len(receiver.at()) == 1
    webhook = world.webhook(webhook_id)
    assert webhook.disabled_at
    assert "410" in str(webhook.disabled_reason)
    assert {each.state for each in world.deliveries(webhook_id)} == {"failed"}
    world.happen()
    assert len(world.deliveries(webhook_id)) == 3


def test_retry_after_of_a_429_is_respected(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = hostile.one_after_another(says(429, Retry_After="1"), says(200))
    world.listen(receiver.url())
    world.happen(2)
    world.send()
    first, *others = receiver.at()
    assert len(others) == 2
    assert min(each.at for each in others) - first.at > 0.9


def test_a_hang_is_cut(hasty: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = hostile.hangs()
    tried = tell_once(hasty, receiver.url())
    assert tried["status"] is None
    assert tried["error"] == "no answer within 1 seconds"
    assert 0.9 < tried["seconds"] < 5


def test_a_slow_drip_of_headers_is_cut(hasty: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = hostile.drips_headers
    tried = tell_once(hasty, receiver.url())
    assert tried["status"] is None
    assert tried["error"] == "no answer within 1 seconds"
    assert 0.9 < tried["seconds"] < 5


def test_a_slow_body_after_a_2xx_is_cut_but_counts_as_delivered(hasty: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = hostile.drips_body
    tried = tell_once(hasty, receiver.url())
    assert tried["status"] == 200
    assert 0.9 < tried["seconds"] < 5
    assert set(tried["answer"]) == {"a"}


def test_a_gigabyte_is_not_read(world: World, receiver: Receiver) -> None:
    flood = receiver.answers["/hook"] = hostile.Flood()
    with suppress(OSError):  # no Linux
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew from here: proc(5)
    before = peak_bytes()
    tried = tell_once(world, receiver.url())
    assert tried["status"] == 200
    assert tried["answer"] == "x" * 1024
    assert flood.ended.wait(10)
    assert flood.sent < 50_000_000  # what the kernel's buffers took
    assert peak_bytes() - before < 100_000_000


def test_a_gzip_bomb_stays_packed(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = hostile.gzip_bomb()
    tried = tell_once(world, receiver.url())
    assert tried["status"] == 200
    assert tried["answer"] == "(gzip: not decoded)"


def test_control_characters_of_an_answer_do_not_get_into_the_log(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = says(500, b"a\0b\x1b[31m\xff\xe2\x80\xaec\n")
    tried = tell_once(world, receiver.url())
    assert tried["answer"] == "a\ufffdb\ufffd[31m\ufffd\ufffdc\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (hostile.not_http, "the answer is not HTTP"),
        (hostile.nothing_at_all, "the connection was closed before an answer came"),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500), "the answer is not HTTP"),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 99999 No\r\n\r\n"), "the answer is not HTTP"),
    ],
)
def test_nonsense_is_a_failed_try(world: World, receiver: Receiver, answer: hostile.Answerer, error: str) -> None:
    receiver.answers["/hook"] = answer
    assert tell_once(world, receiver.url())["error"] == error


def test_a_closed_port_is_a_failed_try(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert tell_once(world, f"http://127.0.0.1:{port}/")["error"] == "the connection was refused"


def test_a_certificate_of_an_unknown_authority_is_refused(world: World, tmp_path: Path) -> None:
    with receiving(tls=server_tls(self_signed(tmp_path))) as receiver:
        tried = tell_once(world, receiver.url())
        assert tried["status"] is None
        assert tried["error"].startswith("TLS: self-signed certificate")
        assert receiver.received == []


def test_a_certificate_of_another_host_is_refused(
    make_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path, name="elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiving(tls=server_tls(certificate)) as receiver:
        tried = tell_once(make_world(), receiver.url())
        assert tried["error"].startswith("TLS: IP address mismatch")
        assert receiver.received == []


def test_an_expired_certificate_is_refused(
    make_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path, days=-1)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiving(tls=server_tls(certificate)) as receiver:
        assert "expired" in tell_once(make_world(), receiver.url())["error"]


def test_a_good_certificate_is_checked_against_the_name_and_not_the_address(
    make_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path, name="studio.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    answer_names(monkeypatch, {"studio.example": [["127.0.0.1"]]})
    with receiving(tls=server_tls(certificate)) as receiver:
        tried = tell_once(make_world(), receiver.url(host="studio.example"))
        assert tried["status"] == 200
        assert receiver.at()[0].headers["host"] == f"studio.example:{receiver.server_address[1]}"


def test_a_handshake_that_hangs_is_cut(hasty: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        tried = tell_once(hasty, f"https://127.0.0.1:{server.getsockname()[1]}/")
    assert tried["error"] == "no answer within 1 seconds"
    assert tried["seconds"] < 5


def test_a_proxy_of_the_environment_is_not_used(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        assert tell_once(world, receiver.url())["status"] == 200
        assert proxy.received == []


# --- names and addresses --------------------------------------------------------------------------------------


def answer_names(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> list[str]:
    """Names get these answers, one after another; the last one for ever. Returns the list of what was asked."""
    real, asked = socket.getaddrinfo, []

    def resolve(host: str, port: int, *args: object, **more: object) -> list:
        if host not in names:
            return real(host, port, *args, **more)  # type: ignore[arg-type]
        asked.append(host)
        answers = names[host].pop(0) if len(names[host]) > 1 else names[host][0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in answers
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_a_name_that_changes_after_the_check_is_not_resolved_again(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(webhook_allow_networks=("127.0.0.2/32",))
    with receiving("127.0.0.2") as good, receiving("127.0.0.1", good.server_address[1]) as inside:
        asked = answer_names(monkeypatch, {"flip.example": [["127.0.0.2"], ["127.0.0.1"]]})
        webhook_id, _ = world.listen(good.url(host="flip.example"))
        good.answers["/hook"] = says(500)
        world.happen()
        world.send()
        tries = world.deliveries(webhook_id)[0].attempts
        assert [each["status"] for each in tries] == [500, None, None, None]
        assert "not on the open internet" in tries[1]["error"]
        assert "127.0.0.1" not in tries[1]["error"]
        assert len(asked) == len(tries)  # one look-up a try: what was checked is what was connected to
        assert len(good.received) == 1
        assert inside.received == []


def test_one_bad_address_among_good_ones_refuses_the_name(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(webhook_allow_networks=("127.0.0.2/32",))
    with receiving("127.0.0.2") as good:
        answer_names(monkeypatch, {"mixed.example": [["127.0.0.2", "10.0.0.1"]]})
        assert "not on the open internet" in tell_once(world, good.url(host="mixed.example"))["error"]
        assert good.received == []


def test_the_next_address_is_tried_when_one_does_not_answer(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving("127.0.0.2") as good:
        answer_names(monkeypatch, {"two.example": [["127.0.0.3", "127.0.0.2"]]})
        assert tell_once(make_world(), good.url(host="two.example"))["status"] == 200


def test_a_resolver_that_hangs_is_not_waited_for(hasty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: time.sleep(20))
    tried = tell_once(hasty, "http://slow.example:8000/")
    assert tried["status"] is None
    assert tried["seconds"] < 5


@pytest.mark.parametrize("host", ["127.0.0.1", "metadata.example", "[::ffff:127.0.0.1]"])
def test_an_address_is_checked_again_at_each_try(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, host: str, receiver: Receiver
) -> None:
    """An operator who takes a network off the list stops what was allowed before."""
    world = make_world()
    answer_names(monkeypatch, {"metadata.example": [["127.0.0.1"]]})
    webhook_id, _ = world.listen(receiver.url(host=host))
    strict = make_world(webhook_allow_networks=())
    world.sender.close()
    strict.runtime.db = world.runtime.db
    world.sender = DeliverySender(strict.runtime)
    world.happen()
    world.send()
    assert "open internet" in world.deliveries(webhook_id)[0].attempts[0]["error"]
    assert receiver.received == []
