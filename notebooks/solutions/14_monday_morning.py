"""Answers to the exercises of 14_monday_morning."""


def fold(message):
    return " ".join("#" if any(map(str.isdigit, word)) else word for word in message.split())


def replay_seconds(slices, rate, pause):
    return sum(slices) / rate + pause * (len(slices) - 1)


def safe_to_replay(letters, home):
    seen, safe = set(home), []
    for i, (origin, cause) in enumerate(letters):
        if cause == "outage" and origin not in seen:
            safe.append(i)
        seen.add(origin)
    return safe
