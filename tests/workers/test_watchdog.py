from workers.watchdog import Message, Watchdog


class Scene:
    def __init__(self) -> None:
        self.waiting: set[Message] = set()
        self.busy = False

    def watchdog(self, seconds: float) -> Watchdog:
        return Watchdog(seconds, lambda: set(self.waiting), lambda: self.busy)


def test_an_idle_worker_past_which_a_message_lies_is_deaf() -> None:
    scene = Scene()
    watchdog = scene.watchdog(0)
    scene.waiting = {("job_1", 1)}
    assert not watchdog.is_deaf()
    assert watchdog.is_deaf()


def test_a_busy_worker_is_not_deaf() -> None:
    scene = Scene()
    watchdog = scene.watchdog(0)
    scene.waiting, scene.busy = {("job_1", 1)}, True
    assert not watchdog.is_deaf()
    assert not watchdog.is_deaf()


def test_messages_that_come_and_go_are_no_sign() -> None:
    scene = Scene()
    watchdog = scene.watchdog(0)
    for number in range(5):
        scene.waiting = {(f"job_{number}", 1)}
        assert not watchdog.is_deaf()


def test_it_takes_its_time() -> None:
    scene = Scene()
    watchdog = scene.watchdog(60)
    scene.waiting = {("job_1", 1)}
    watchdog.is_deaf()
    assert not watchdog.is_deaf()
