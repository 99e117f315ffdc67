"""What the doctor says of one thing."""

import msgspec

OK, WARN, FAIL = "ok", "warn", "fail"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at. `fix`: what to do, when something is wrong."""

    name: str
    state: str
    said: str
    fix: str = ""
