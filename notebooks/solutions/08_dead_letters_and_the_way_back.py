"""Answers to the exercises of 08_dead_letters_and_the_way_back."""


def dead_after(n, p, k, replays):
    return n * p ** (k * (replays + 1))


def worth_replaying(letters, cap):
    return [i for i, (reason, replays) in enumerate(letters) if reason == "transient" and replays < cap]
