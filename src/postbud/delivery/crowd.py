"""How many connections a worker has at once: as many as its event loop keeps up with.

Every connection that has something to do makes each turn of the loop longer, and a delivery needs about ten turns: thousands
of busy connections send no more than some hundred, but all mail is late. So the time of a turn is looked at, and the number
follows it: a little more while turns are short, a fifth less when they are long. The first connection of a lane is always
allowed, so that sites which hold theirs for minutes cannot keep others from having one. Knows no lane and no site.
"""

FEWEST = 50
FIRST = 200
LONG_TURN_SECONDS = 0.02


class Crowd:
    """Counts a worker's connections against a bound that moves."""

    def __init__(self) -> None:
        self.count = 0
        self.most = FIRST

    @property
    def has_room(self) -> bool:
        """Whether a lane that has connections may open one more."""
        return self.count < self.most

    @property
    def is_crowded(self) -> bool:
        """Whether a lane that has several connections should close one."""
        return self.count > self.most

    def turned(self, seconds: float) -> None:
        """Take the time of one turn of the loop; to be told about once a second."""
        if seconds >= LONG_TURN_SECONDS:
            self.most = max(FEWEST, min(self.most, self.count) * 4 // 5)
        elif not self.has_room:
            self.most += max(10, self.most // 10)
