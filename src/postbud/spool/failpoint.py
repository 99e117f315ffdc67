"""Named places where a test can kill, stall or fail the process. Off, a place costs one look into an empty table.

`configure` is called once by the wiring with the text of POSTBUD_FAILPOINTS; nothing here reads the environment. Format:
`name=action[@n]` joined by `,`, with action `kill`, `sleep:SECONDS` or `raise:EXCEPTION` (a builtin's name), and `@n`
to act only the n-th time the place is reached (and never after). `name` may carry a detail after `/` to act for one id.
"""

import builtins
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_points: dict[str, "_Point"] = {}
_lock = threading.Lock()


@dataclass(slots=True)
class _Point:
    act: Callable[[], None]
    only: int | None
    reached: int = 0


def fp(name: str, detail: str = "") -> None:
    """Pass a named place. Acts only if configured for the name, or for `name/detail`."""
    if _points:
        _pass(name)
        if detail:
            _pass(f"{name}/{detail}")


def configure(text: str) -> None:
    """Set all places from a text; an empty one clears them.

    Raises:
        ValueError: The text does not follow the format.
    """
    points = dict(_parse(part.strip()) for part in text.split(",") if part.strip())
    _points.clear()
    _points.update(points)


def _pass(name: str) -> None:
    point = _points.get(name)
    if point is None:
        return
    with _lock:
        point.reached += 1
        due = point.only is None or point.reached == point.only
    if due:
        point.act()


def _parse(part: str) -> tuple[str, _Point]:
    name, separator, action = part.partition("=")
    action, _, nth = action.partition("@")
    verb, _, argument = action.partition(":")
    if not separator or not name:
        raise ValueError(f"failpoint {part!r}: want name=action")
    return name, _Point(_action(part, verb, argument), int(nth) if nth else None)


def _action(part: str, verb: str, argument: str) -> Callable[[], None]:
    if verb == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if verb == "sleep":
        seconds = float(argument)
        return lambda: time.sleep(seconds)
    kind = getattr(builtins, argument, None)
    if verb != "raise" or not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise ValueError(f"failpoint {part!r}: action is kill, sleep:SECONDS or raise:EXCEPTION")
    return lambda: _raise(kind, part)


def _raise(kind: type[BaseException], part: str) -> None:
    raise kind(f"failpoint {part}")
