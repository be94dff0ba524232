"""Answers to the exercises of 12_where_the_time_goes."""


def amdahl(share, factor):
    return 1 / (1 - share + share / factor)


def batch_seconds(n, order, commit, size):
    commits = (n + size - 1) // size
    return n * order + commits * commit
