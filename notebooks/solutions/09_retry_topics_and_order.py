"""Answers to the exercises of 09_retry_topics_and_order."""


def line_waits(blocks, gap):
    waits = [0]
    for block in blocks[:-1]:
        waits.append(max(0, waits[-1] + block - gap))
    return waits


def records_written(n, bad, k):
    return n + bad * (k - 1)
