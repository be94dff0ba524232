"""Answers to the exercises of 06_how_long_to_wait."""


def total_wait(base, cap, k):
    return sum(min(cap, base * 2**i) for i in range(k - 1))


def jitter(base, cap, attempt, u):
    return u * min(cap, base * 2 ** (attempt - 1))
