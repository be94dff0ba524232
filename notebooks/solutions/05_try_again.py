"""Answers to the exercises of 05_try_again."""


def expected_attempts(n, p, k):
    return sum(n * p**attempt for attempt in range(k))


def attempts_needed(p, loss):
    k = 1
    while p**k > loss:
        k += 1
    return k
