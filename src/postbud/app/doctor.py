"""`postbud doctor`: looks at everything that mail needs around Postbud, and says of each fault how it is mended.

Owns the order and the words; what is looked at is in `doctor_net` and `doctor_machine`. Changes nothing. The exit status
is 1 when something fails.
"""

import argparse
import asyncio
import sys
import time

import msgspec

from postbud.app import demo
from postbud.app.config import Settings
from postbud.app.doctor_findings import FAIL, OK, WARN, Finding
from postbud.app.doctor_machine import look_at_machine
from postbud.app.doctor_net import look_at_net
from postbud.app.translate import nameservers
from postbud.net.dns import Resolver, ResolverSettings

_MARKS = {OK: "ok  ", WARN: "warn", FAIL: "FAIL"}
_TIMEOUT_SECONDS = 3.0


def run_doctor(parsed: argparse.Namespace, settings: Settings) -> int:
    """Look and print; the exit status is 1 when something fails."""
    findings = examine(settings)
    if parsed.json:
        sys.stdout.writelines(msgspec.json.encode(finding).decode() + "\n" for finding in findings)
    else:
        sys.stdout.write(text_of(findings))
    return 1 if any(finding.state == FAIL for finding in findings) else 0


def examine(settings: Settings) -> list[Finding]:
    """Look at everything. A demo has no names and no way out: only the machine is looked at."""
    findings = look_at_machine(settings)
    if not demo.is_demo(settings.data):
        findings += asyncio.run(_look_outside(settings))
    return findings


async def _look_outside(settings: Settings) -> list[Finding]:
    asking = ResolverSettings(nameservers=nameservers(settings), timeout_seconds=_TIMEOUT_SECONDS, rounds=1)
    return await look_at_net(settings, Resolver(asking, time.monotonic))


def text_of(findings: list[Finding]) -> str:
    """Lay findings out for people: what is wrong stands with its fix below it."""
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.state]}  {finding.name:<12}{finding.said}")
        if finding.fix:
            lines.append(f"      {'':<12}-> {finding.fix}")
    failed = sum(finding.state == FAIL for finding in findings)
    warned = sum(finding.state == WARN for finding in findings)
    lines.append(f"{len(findings)} looked at, {failed} to mend, {warned} to think about")
    return "\n".join(lines) + "\n"
