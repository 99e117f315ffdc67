"""TCP ports of loopback for tests and the bench, kept for one process each.

They lie below the ports that the system gives to outgoing connections: a server that is killed and started again on its
port finds it free, whatever others connect to meanwhile. Each is marked as taken by an abstract socket of its number, which
ends with the process, so that runs side by side never share one (SO_REUSEPORT would let them).
"""

import contextlib
import random
import socket
from pathlib import Path

_LOWEST = 10_000
_MARKS: list[socket.socket] = []


def free_port() -> int:
    """Give a port that nobody listens on now and that no other test is given while this process lives.

    Raises:
        OSError: There is none.
    """
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(_LOWEST, first_outgoing), 1_000):
        mark = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as probe:
            mark.bind(f"\0postbud-port-{port}")
            probe.bind(("127.0.0.1", port))
            _MARKS.append(mark)
            return port
        mark.close()
    raise OSError("no free port")
