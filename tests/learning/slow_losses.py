"""The losses the slow way: lists of floats, in double precision, one pair after the other."""

from __future__ import annotations

import math


def slow_cosine(a, b) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a)) / math.sqrt(math.fsum(y * y for y in b))


def slow_softmax(values, temperature: float) -> list[float]:
    powers = [math.exp((v - max(values)) / temperature) for v in values]
    return [p / math.fsum(powers) for p in powers]


def slow_kl(a, b, floor: float) -> float:
    return math.fsum(x * (math.log(x) - math.log(y + floor)) for x, y in zip(a, b, strict=True) if x)


def slow_divergence(p, q, divergence: str, floor: float) -> float:
    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return {
        "symmetric": lambda: (slow_kl(p, q, floor) + slow_kl(q, p, floor)) / 2,
        "forward": lambda: slow_kl(q, p, floor),
        "reverse": lambda: slow_kl(p, q, floor),
        "jensen_shannon": lambda: (slow_kl(p, m, floor) + slow_kl(q, m, floor)) / 2,
    }[divergence]()


def slow_soft_label(query, candidates, scores, student=0.02, judge=0.02, floor=1e-8, divergence="symmetric") -> float:
    total = 0.0
    for q, row, judged in zip(query, candidates, scores, strict=True):
        p = slow_softmax([slow_cosine(q, c) for c in row], student)
        total += slow_divergence(p, slow_softmax(judged, judge), divergence, floor)
    return total / len(query)


def slow_contrastive(query, rows, positives, temperature=0.02, left_out=frozenset()) -> float:
    total = 0.0
    for i, q in enumerate(query):
        kept = [j for j in range(len(rows)) if j == positives[i] or (i, j) not in left_out]
        p = slow_softmax([slow_cosine(q, rows[j]) for j in kept], temperature)
        total -= math.log(p[kept.index(positives[i])])
    return total / len(query)
