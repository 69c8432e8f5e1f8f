"""Starts what a check needs on free ports of 127.0.0.1, and ends exactly that.

Nothing here looks for processes: each server is a child, ended by its own handle.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

# Told to end, end what was started too: SystemExit runs the `finally` below, the default would not.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def binary() -> str:
    found = os.environ.get("OUTRIGGER_BIN")
    if not found:
        raise SystemExit("OUTRIGGER_BIN must name the outrigger binary")
    return found


def fetch(url: str, timeout: float = 5.0, **request) -> tuple[int, dict, bytes]:
    """Status, headers (lower case) and body of one plain request; an error status is an answer too."""
    asked = urllib.request.Request(url, **request)
    try:
        answer = urllib.request.urlopen(asked, timeout=timeout)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, headers, answer.read()


def wait_ready(child: subprocess.Popen, url: str, log: str, within: float = 15.0) -> None:
    deadline = time.monotonic() + within
    while True:
        if child.poll() is not None:
            raise RuntimeError(f"{child.args[:2]} ended with {child.returncode}: {tail(log)}")
        try:
            if fetch(url, timeout=1)[0] == 200:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} is not ready after {within} s: {tail(log)}")
        time.sleep(0.02)


def tail(path: str) -> str:
    with open(path, errors="replace") as log:
        return log.read()[-800:]


@contextmanager
def running(arguments: list[str], ready: str, name: str):
    """A child process from the moment `ready` answers 200 to the end of the block."""
    logs = os.environ.get("LOGS", "/tmp")
    log = os.path.join(logs, f"{name}-{os.getpid()}.log")
    with open(log, "wb") as sink:
        child = subprocess.Popen(arguments, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        wait_ready(child, ready, log)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Gateway:
    """Where a running gateway is reached."""

    def __init__(self, data: int, admin: int):
        self.root = f"http://127.0.0.1:{data}"
        self.base = f"{self.root}/v1"
        self.admin = f"http://127.0.0.1:{admin}"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        text = fetch(f"{self.admin}/metrics")[2].decode()
        total = 0.0
        for line in text.splitlines():
            sample = re.fullmatch(r"([a-zA-Z_:]+)(?:\{(.*)\})? ([^ ]+)", line)
            if sample and sample[1] == name:
                have = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
                if all(have.get(label) == value for label, value in labels.items()):
                    total += float(sample[3])
        return total


@contextmanager
def gateway(upstream: str | None = None, config: str | None = None):
    """Outrigger before one upstream, or with a configuration file that has no `server` and `admin` of its own."""
    data, admin = free_port(), free_port()
    arguments = [binary(), "run", "--listen", f"127.0.0.1:{data}", "--admin", f"127.0.0.1:{admin}"]
    arguments += ["--config", config] if config else ["--upstream", upstream]
    with running(arguments, f"http://127.0.0.1:{admin}/readyz", "outrigger"):
        yield Gateway(data, admin)


@contextmanager
def mock(scenario: str | None = None):
    """The stand-in model server; yields its root URL."""
    port = free_port()
    arguments = [binary(), "mock", "--listen", f"127.0.0.1:{port}"]
    if scenario:
        arguments += ["--scenario", scenario]
    with running(arguments, f"http://127.0.0.1:{port}/_mock/stats", "mock"):
        yield f"http://127.0.0.1:{port}"
