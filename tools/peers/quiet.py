"""How much of the processors other programs take while something is measured."""
import os
import time
from pathlib import Path

from common import say

TICKS = os.sysconf("SC_CLK_TCK")


def busy():
    """Seconds that the processors have worked for anybody, or the machine below this one has taken from them."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def own():
    """Seconds that this program and its children have worked."""
    total = sum(os.times()[:4])
    for child in Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
        total += sum(map(int, Path("/proc", child, "stat").read_text().rsplit(")", 1)[1].split()[11:15])) / TICKS
    return total


class Others:
    """The share of the processors that others take, since it was made."""

    def __init__(self):
        self.start = time.monotonic(), busy() - own()

    def share(self):
        seconds, foreign = self.start
        return (busy() - own() - foreign) / ((time.monotonic() - seconds) * os.cpu_count())


def alone(measure, most):
    """What `measure` returns when others took at most a share of `most` of the processors while it ran: it waits for that, and measures again where they came meanwhile."""
    told = False
    while True:
        before = Others()
        time.sleep(1)
        if before.share() <= most:
            during = Others()
            result = measure()
            if during.share() <= most:
                return result
        elif not told:
            say(f"other programs take {100 * before.share():.0f} % of the processors: waiting for an end of that")
            told = True
        time.sleep(1)
