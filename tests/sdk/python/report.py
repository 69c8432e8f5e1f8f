"""One line for every check: `ok NAME` or `FAIL NAME reason`. tests/run counts them."""

import sys
import traceback
from contextlib import contextmanager

failed = 0


def ok(name: str) -> None:
    print(f"ok {name}", flush=True)


def fail(name: str, reason: object) -> None:
    global failed
    failed += 1
    text = " ".join(str(reason).split()) or type(reason).__name__
    print(f"FAIL {name}: {text[:600]}", flush=True)


@contextmanager
def check(name: str):
    """Runs a block as one check: it passes when it ends, fails when it raises."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except AssertionError as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        fail(name, str(error) or f"line {frame.lineno}: {frame.line}")
    except Exception as error:  # noqa: BLE001: whatever it is, it is this check that failed
        fail(name, f"{type(error).__name__}: {error}")
    else:
        ok(name)


def equal(have: object, want: object, what: str = "") -> None:
    assert have == want, f"{what or 'value'}: have {have!r}, want {want!r}"


def note(text: str) -> None:
    """Something measured, for people; not counted."""
    print(f"   {text}", flush=True)


def done() -> None:
    sys.exit(1 if failed else 0)
