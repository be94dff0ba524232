"""What is right in the exercises from dead letters on: each makes one case from a random generator, for `check`."""

from __future__ import annotations

from random import Random

from orderkit.lab.check import Case
from orderkit.lab.gameday import FAULTS

WORDS = ("no", "answer", "from", "refused:", "order", "within", "ms", "(request", "at", "byte", "of")


def dead_after(chance: Random) -> Case:
    """Draw n orders, a failure rate, k attempts and a number of replays: each round gives k attempts more."""
    n, p, k, replays = chance.randint(1, 10_000), chance.randint(1, 19) / 20, chance.randint(1, 4), chance.randint(0, 4)
    return (n, p, k, replays), n * p ** (k * (replays + 1))


def worth(chance: Random) -> Case:
    """Draw dead letters as reason and replays so far, and a cap: find the places of those that a replay may help."""
    cap = chance.randint(1, 3)
    reasons = ("transient", "transient", "poison", "permanent")
    letters = [(chance.choice(reasons), chance.randint(0, 4)) for _ in range(chance.randint(0, 10))]
    right = [i for i, (reason, replays) in enumerate(letters) if reason == "transient" and replays < cap]
    return (letters, cap), right


def line_waits(chance: Random) -> Case:
    """Draw how long each order keeps those behind it, in ms, and the gap between two arrivals: Lindley's formula."""
    blocks = [chance.choice((0, 0, 0, 200, 500)) for _ in range(chance.randint(1, 10))]
    gap = chance.choice((10, 50, 100))
    waits = [0]
    for block in blocks[:-1]:
        waits.append(max(0, waits[-1] + block - gap))
    return (blocks, gap), waits


def records_written(chance: Random) -> Case:
    """Draw n orders, how many of them fail at all attempts but the last, and k attempts: each retry is a record."""
    n, k = chance.randint(1, 10_000), chance.randint(1, 6)
    bad = chance.randint(0, n)
    return (n, bad, k), n + bad * (k - 1)


def amdahl(chance: Random) -> Case:
    """Draw which share of the time a part takes, and how many times faster it gets: how many times the whole gets."""
    share, factor = chance.randint(0, 20) / 20, chance.choice((1, 2, 5, 10, 100))
    return (share, factor), 1 / (1 - share + share / factor)


def batch_seconds(chance: Random) -> Case:
    """Draw n orders, ms for an order, ms for a commit, and orders to a commit: the last batch may be a short one."""
    n, size = chance.randint(1, 5_000), chance.randint(1, 500)
    order, commit = chance.randint(1, 9), chance.randint(1, 99)
    return (n, order, commit, size), n * order + -(-n // size) * commit


def visible(chance: Random) -> Case:
    """Draw a log of transactions' names and how they ended: find the places that a read_committed reader sees.

    It sees what was committed, and nothing from the first record on whose transaction is still open.
    """
    log = [chance.choice("abc") for _ in range(chance.randint(0, 10))]
    ended = {name: chance.choice(("commit", "abort")) for name in "abc" if chance.random() < 0.8}
    end = next((i for i, name in enumerate(log) if name not in ended), len(log))
    return (log, ended), [i for i in range(end) if ended[log[i]] == "commit"]


def twice_or_never(chance: Random) -> Case:
    """Draw the offsets of dead letters, the committed offset, and where the consumer died: some are written again."""
    dead = sorted(chance.sample(range(100), chance.randint(0, 30)))
    committed = chance.randint(0, 99)
    died = chance.randint(committed, 100)
    return (dead, committed, died), sum(committed <= offset < died for offset in dead)


def settle_word(chance: Random) -> Case:
    """Draw how a delivery ended, its number and the limit: the word with which it is settled with the broker."""
    limit = chance.randint(2, 10)
    reason, delivery = chance.choice(("none", "transient", "permanent", "poison")), chance.randint(1, limit)
    if reason == "none":
        return (reason, delivery, limit), "ACCEPT"
    return (reason, delivery, limit), "RELEASE" if reason == "transient" and delivery < limit else "REJECT"


def served(chance: Random) -> Case:
    """Draw n orders, a failure rate and the delivery limit: how many come to their first, second, ... delivery."""
    n, p, limit = chance.randint(1, 9_999), chance.choice((0.25, 0.5, 0.75)), chance.randint(2, 10)
    return (n, p, limit), [n * p**i for i in range(limit)]


def diagnosis(chance: Random) -> Case:
    """Draw what a dashboard tells: reasons of the dead, their products, their share of the line, slow attempts."""
    fault = chance.choice(FAULTS)
    reason = {"poison": "poison", "refusals": "permanent"}.get(fault, "transient")
    reasons = {} if fault == "slow service" else {reason: chance.randint(5, 40)}
    products = 1 if fault == "bad product" else 0 if fault == "slow service" else chance.randint(4, 8)
    span = (
        chance.uniform(0.05, 0.3) if fault == "outage" else 0.0 if fault == "slow service" else chance.uniform(0.7, 1)
    )
    return (reasons, products, round(span, 2), fault == "slow service"), fault


def label(chance: Random) -> Case:
    """Draw a message of words, numbers, addresses and ids: each word with a digit in it becomes `#`."""
    words, folded = list[str](), list[str]()
    for _ in range(chance.randint(1, 12)):
        number = chance.randint(0, 99_999)
        told = chance.choice((f"{number}", f"10.0.{number % 256}.17:8443", f"{number}ms", f"8f{number}a-77c1)"))
        word = chance.choice(WORDS) if chance.random() < 0.6 else told
        words.append(word)
        folded.append("#" if word is told else word)
    return (" ".join(words),), " ".join(folded)


def replay_seconds(chance: Random) -> Case:
    """Draw the letters of each slice, letters per second, and seconds between two slices: n / r, and the pauses."""
    slices = [chance.randint(1, 20_000) for _ in range(chance.randint(1, 6))]
    rate, pause = chance.choice((100, 500, 2_000, 5_000)), chance.randint(0, 60)
    seconds = [many / rate + pause for many in slices]
    return (slices, rate, pause), sum(seconds) - pause


def safe(chance: Random) -> Case:
    """Draw letters as origin and cause, all letters of an origin with one cause, and origins that are home.

    Safe is the first letter of an origin that died in the outage and is not home.
    """
    causes = {origin: chance.choice(("outage", "outage", "unreadable", "no product")) for origin in range(8)}
    drawn = [chance.randrange(8) for _ in range(chance.randint(0, 12))]
    home = {origin for origin in causes if chance.random() < 0.3}
    first = {origin: drawn.index(origin) for origin in drawn}
    right = sorted(place for origin, place in first.items() if causes[origin] == "outage" and origin not in home)
    return ([(origin, causes[origin]) for origin in drawn], home), right
