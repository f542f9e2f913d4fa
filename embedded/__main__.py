"""`python -m embedded`: `serve` (the whole service in the foreground until Ctrl-C), `demo`, `backup` and `restore`."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing has to be stopped yet: Ctrl-C during the imports just exits

import sys
import time
from pathlib import Path
from types import FrameType

import click

from embedded.backup import backup_command, restore_command
from embedded.demo import demo
from embedded.stack import ROOT, Stack
from embedded.supervisor import InUse, StartFailed


@click.group(help="Run the whole service on this machine, with servers that come from pip.")
def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


main.add_command(demo)
main.add_command(backup_command)
main.add_command(restore_command)


@main.command()
@click.option("--data", type=click.Path(path_type=Path), default=ROOT / "data", help="The service's folder.")
@click.option("--port", type=int, help="Port of the API. By default a free one is chosen.")
def serve(data: Path, port: int | None) -> None:
    """Serve until Ctrl-C."""
    try:
        with Stack(data, port=port, report=say) as stack:
            say(f"the API is at      {stack.url}")
            say(f"an API key          {stack.api_key}")
            say(f"logs and data       {stack.data_dir}")
            say("Ctrl-C stops everything")
            watch(stack)
    except KeyboardInterrupt:
        say("everything is stopped")
    except (InUse, StartFailed, RuntimeError) as error:
        raise SystemExit(f"bootlora: {error}") from None


def watch(stack: Stack) -> None:
    """Keep a status line up to date on a terminal. Elsewhere, print nothing."""
    began = time.monotonic()
    while True:
        if sys.stdout.isatty():
            minutes, seconds = divmod(int(time.monotonic() - began), 60)
            print(f"\r\033[Kup {minutes}:{seconds:02d}  {states(stack)}", end="", flush=True)
        time.sleep(1)


def states(stack: Stack) -> str:
    processes = stack.supervisor.processes
    return "  ".join(f"{name} {'up' if processes[name].revive_at is None else 'DOWN'}" for name in list(processes))


def say(line: str) -> None:
    clear = "\r\033[K" if sys.stdout.isatty() else ""
    print(f"{clear}bootlora: {line}", flush=True)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM and SIGHUP as Ctrl-C, so that everything stops in order."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
