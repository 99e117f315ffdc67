"""Run dialogue scripts against any server.

    python -m tests.dialog.run HOST:PORT SCRIPT…            every script on that port, whatever its listener
    python -m tests.dialog.run HOST:PORT --port implicit=4465 --port inbound=2526 SCRIPT…

Scripts whose header names a listener that was not given run on HOST:PORT, but `implicit`, `inbound` and `proxy` are left out.
Prints a line a script; ends with status 1 when one differs.
"""

import argparse
import sys
from pathlib import Path

from tests.dialog.driver import Dialogue, DifferenceError, Target
from tests.dialog.script import parse

_SAME_PORT = ("cleartext", "submission", "network")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="HOST:PORT")
    parser.add_argument("scripts", nargs="+", type=Path)
    parser.add_argument("--port", action="append", default=[], help="LISTENER=PORT")
    words = parser.parse_args()
    host, _, port = words.server.rpartition(":")
    ports = dict.fromkeys(_SAME_PORT, int(port)) | {
        name: int(number) for name, _, number in (p.partition("=") for p in words.port)
    }
    differing = 0
    for path in words.scripts:
        script = parse(path)
        try:
            Dialogue(script, Target(host, ports)).run()
        except LookupError as error:
            print(f"skip  {path.name}: {error}")
        except DifferenceError as error:
            differing += 1
            print(f"DIFF  {error}")
        else:
            print(f"ok    {path.name}  {script.header.get('title', '')}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
