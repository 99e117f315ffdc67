"""How fast a lane goes at a provider that throttles: a simulated hour each, drawn for docs/shaping.md.

Run: python -m bench.shaping [--out docs/images/shaping.svg]. No sockets and no clock: the lane's own `Pace`, its own words
(`shaping.toml`) and its own retries meet a simulated provider; the same dice give the same picture.
"""

import argparse
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from tests.unit.shaping.provider import Provider, Run, simulate

from postbud.model.outcome import Deferred, Reply, Scope
from postbud.shaping.backoff import RetrySchedule
from postbud.shaping.limits import Action, Shaping
from postbud.shaping.pace import Pace

HOUR_SECONDS = 3600
PER_MINUTE = 300
CEILING = 20
GREYLISTED = "Greylisted, please try again later"
TOO_MANY = "Too many recipients"


@dataclass(slots=True)
class Scenario:
    """A provider, and what became of an hour's mail."""

    title: str
    limit: float | None  # what the provider takes in a minute
    taken: list[int] = field(default_factory=list)  # in each minute
    refused: list[int] = field(default_factory=list)
    allowed: list[tuple[float, float]] = field(default_factory=list)  # when, and the lane's own rate a minute

    def found(self) -> str:
        """Say how much was taken and refused after the first ten minutes."""
        taken, refused = sum(self.taken[10:]), sum(self.refused[10:])
        part = f", {taken / (50 * self.limit):.0%} of what it takes" if self.limit else ""
        return f"{self.title}: {taken / 50:.0f} a minute{part}; refused {refused / max(1, taken + refused):.2%}"


def throttled(title: str, provider: Provider, limit: float) -> Scenario:
    """Let endless mail meet a provider that counts."""
    run: Run = simulate(provider, HOUR_SECONDS, ceiling=CEILING)
    return Scenario(
        title,
        limit,
        [run.taken_between(60 * minute, 60 * minute + 60) for minute in range(60)],
        [run.refused_between(60 * minute, 60 * minute + 60) for minute in range(60)],
        [(at, 60 * rate) for at, rate, _ in run.allowed if rate is not None],
    )


def steady(title: str, judge: Callable[[int], str | None], code: int, enhanced: str) -> Scenario:
    """Let five messages a second meet a provider that refuses some the first time, by words that ask nothing of the lane."""
    shaping = Shaping.from_toml(
        ("shaping.toml", resources.files("postbud.shaping").joinpath("shaping.toml").read_text("utf-8"))
    )
    dice, pace, schedule = random.Random(1), Pace(CEILING, 0.0), RetrySchedule()
    found = Scenario(title, None, [0] * 60, [0] * 60)
    due = [(number / 5, number, 1) for number in range(5 * HOUR_SECONDS)]
    heapq.heapify(due)
    while due and due[0][0] < HOUR_SECONDS:
        at, number, attempt = heapq.heappop(due)
        wait = pace.delay_seconds(at)
        if wait > 0:
            heapq.heappush(due, (at + wait, number, attempt))
            continue
        pace.started(at)
        words = judge(attempt)
        if words is None:
            found.taken[int(at // 60)] += 1
            pace.delivered(at)
            continue
        found.refused[int(at // 60)] += 1
        reply = Reply(code, (words,), enhanced)
        if shaping.read("mx.example", Deferred(words, enhanced, Scope.RECIPIENT, reply)) is Action.SLOW:
            pace.slow_down(at, words, dice.random())
        later = 0.0 if words == TOO_MANY else schedule.delay_seconds(attempt, dice.random())  # the next part goes at once
        heapq.heappush(due, (at + later, number, attempt + 1))
    rate = pace.state(HOUR_SECONDS).messages_per_second
    assert rate is None, "these words do not slow a lane"
    return found


def scenarios() -> list[Scenario]:
    """Run all."""
    return [
        throttled(f"421 beyond {PER_MINUTE} messages in a minute", Provider(per_minute=PER_MINUTE), PER_MINUTE),
        throttled(
            "the same, and only 421 for a minute after each",
            Provider(per_minute=PER_MINUTE, penalty_seconds=60.0),
            PER_MINUTE,
        ),
        steady("greylisting of 5 messages a second", lambda attempt: GREYLISTED if attempt == 1 else None, 451, "4.7.1"),
        steady("452 after the first part of each message", lambda attempt: TOO_MANY if attempt == 1 else None, 452, "4.5.3"),
    ]


# -- drawing ---------------------------------------------------------------------------------------------------------------

WIDTH, PANEL, LEFT, TOP, RIGHT, BOTTOM = 760, 190, 56, 34, 16, 30
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 } .axis { stroke: #8c959f }
.grid { stroke: #8c959f; stroke-opacity: .25 } .limit { stroke: #cf222e; stroke-dasharray: 5 4 }
.allowed { stroke: #8250df; fill: none; stroke-width: 1.2 } .taken { fill: #0969da; fill-opacity: .65 }
.refused { fill: #cf222e }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .limit { stroke: #ff7b72 } .allowed { stroke: #d2a8ff } .taken { fill: #58a6ff }
.refused { fill: #ff7b72 } }
"""


def draw(found: list[Scenario]) -> str:
    """Give the picture: a panel each, minute by minute."""
    height = PANEL * len(found) + 26
    label = "Messages a minute at four simulated providers, over an hour"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
    parts = [f"{opening}<style>{STYLE}</style>"]
    for number, scenario in enumerate(found):
        parts += panel(scenario, number * PANEL)
    parts.append(
        f'<text x="{LEFT}" y="{height - 8}">bars: messages taken in a minute; red on top: refused; '
        "line: the rate that the lane allows itself; dashed: the provider's limit</text></svg>"
    )
    return "\n".join(parts) + "\n"


def panel(scenario: Scenario, top: int) -> list[str]:
    """Draw one scenario."""
    most = 2 * PER_MINUTE
    inner, floor = WIDTH - LEFT - RIGHT, top + PANEL - BOTTOM

    def x(minute: float) -> float:
        return LEFT + inner * minute / 60

    def y(value: float) -> float:
        return floor - (PANEL - TOP - BOTTOM) * min(value, most) / most

    parts = [f'<text class="title" x="{LEFT}" y="{top + 20}">{scenario.title}</text>']
    for value in range(0, most + 1, PER_MINUTE // 2):
        line = "axis" if value == 0 else "grid"
        parts.append(f'<line class="{line}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    parts += [f'<text x="{x(m):.1f}" y="{floor + 17}" text-anchor="middle">{m} min</text>' for m in range(0, 61, 10)]
    for minute, (taken, refused) in enumerate(zip(scenario.taken, scenario.refused, strict=True)):
        left, wide = x(minute) + 0.8, inner / 60 - 1.6
        parts.append(
            f'<rect class="taken" x="{left:.1f}" y="{y(taken):.1f}" width="{wide:.1f}" height="{floor - y(taken):.1f}"/>'
        )
        if refused:
            height = max(2.0, y(taken) - y(taken + refused))
            parts.append(
                f'<rect class="refused" x="{left:.1f}" y="{y(taken) - height:.1f}" width="{wide:.1f}" height="{height:.1f}"/>'
            )
    points = " ".join(f"{x(at / 60):.1f},{y(rate):.1f}" for at, rate in scenario.allowed[::10])
    if points:
        parts.append(f'<polyline class="allowed" points="{points}"/>')
    if scenario.limit is not None:
        level = f"{y(scenario.limit):.1f}"
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level}" y2="{level}"/>')
    return parts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/shaping.svg"))
    words = parser.parse_args()
    found = scenarios()
    for scenario in found:
        print(scenario.found())
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    main()
