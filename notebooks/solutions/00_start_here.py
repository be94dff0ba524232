"""Answers to the exercises of 00_start_here."""


def enough_attempts(p):
    k = 1
    while p**k >= 0.01:
        k += 1
    return k
