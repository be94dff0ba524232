"""Answers to the exercises of 00_start_here."""


def expected_dead(n, p, k):
    return n * p**k
