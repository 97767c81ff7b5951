"""Where text and pictures lie in an embedding space: the gap between their centres, and a plane to look at it.

Models that embed pictures and texts tend to keep them in two separate cones, the *modality gap* (Liang et al.,
NeurIPS 2022, "Mind the Gap", section 4): its size is the distance between the two centres of unit vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Plane(NamedTuple):
    """The plane in which vectors differ most.

    Attributes:
        coordinates: (n, 2) float64, the vectors less their mean, projected. A second axis that does not exist, as with
            two vectors, is zero.
        explained: (2,) float64, the share of the variance along each axis, between 0 and 1.
    """

    coordinates: NDArray[np.float64]
    explained: NDArray[np.float64]


class Gap(NamedTuple):
    """How far two groups of vectors lie apart.

    Attributes:
        distance: Euclidean distance between the two centres; between 0 and 2 for unit vectors.
        spread: Mean distance of a vector to the centre of its own group, the mean of both groups: what the distance is
            to be compared with.
        first: Vectors in the first group.
        second: Vectors in the second.
    """

    distance: float
    spread: float
    first: int
    second: int


def principal_plane(vectors: ArrayLike) -> Plane:
    """Project vectors onto their first two principal components.

    The sign of a component is arbitrary; it is chosen so that the component's largest entry by size is positive (the
    first of equals), so that the same vectors give the same picture everywhere.

    Args:
        vectors: (n, d), finite; n at least 1.

    Raises:
        ValueError: If there are no vectors, or one is not finite.
    """
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"expected (n, d) finite vectors, got shape {array.shape}")
    _, singular, axes = np.linalg.svd(array - array.mean(axis=0), full_matrices=False)
    axes = axes[:2]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)
    axes = np.where(largest < 0, -1.0, 1.0) * axes
    coordinates = np.zeros((len(array), 2))
    coordinates[:, : len(axes)] = (array - array.mean(axis=0)) @ axes.T
    explained = np.zeros(2)
    if (total := float((singular**2).sum())) > 0:
        explained[: len(axes)] = singular[: len(axes)] ** 2 / total
    return Plane(coordinates, explained)


def modality_gap(vectors: ArrayLike, is_first: ArrayLike) -> Gap:
    """Measure how far two groups of vectors lie apart, such as texts and pictures.

    Args:
        vectors: (n, d), of unit length where distances of several models are to be compared.
        is_first: (n,) bool, the group of each.

    Raises:
        ValueError: If one of the groups is empty.
    """
    array, mask = np.asarray(vectors, dtype=np.float64), np.asarray(is_first, dtype=bool)
    first, second = array[mask], array[~mask]
    if not len(first) or not len(second):
        raise ValueError(f"expected vectors of both groups, got {len(first)} and {len(second)}")
    spread = [np.linalg.norm(group - group.mean(axis=0), axis=1).mean() for group in (first, second)]
    distance = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    return Gap(float(distance), float(np.mean(spread)), len(first), len(second))
