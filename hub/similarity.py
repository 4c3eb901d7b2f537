"""The similarity of LoRA updates, from their factors only: no base, no dense matrix, no torch, so that the registry can use it at upload.

An update changes layer l by X_l = s_l B_l A_l with rank r. The Frobenius product of two of them needs only r x r matrices,

    <X, Y> = sum_l s_l t_l trace((B_l^T D_l) (C_l A_l^T))     for Y_l = t_l D_l C_l,

`cosines` computes the exact cosine for any number of adapters at once. For a library that grows by one adapter at a time, `sketch`
computes a short vector of each: WIDTH random bilinear measurements u_k^T X v_k with signs u, v (a Johnson-Lindenstrauss projection whose
directions have rank one, so that it costs rank-sized work; signs in the place of Gaussians as in arXiv 2110.13970). Products of
sketches are unbiased estimates of products of updates. The error of the cosine is proportional to 1 - cosine^2, so near duplicates are
recognised precisely.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

WIDTH = 512
TILE = 2_048
DUPLICATE = 0.98  # the least cosine of near duplicates


@dataclass(frozen=True)
class Factors:
    """One linear layer's update, scaling * b @ a, with a (r, in) and b (out, r)."""

    a: Floats
    b: Floats
    scaling: float

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.b.shape[0]), int(self.a.shape[1])


Update = Mapping[str, Factors]  # by the layer's path inside the base


@dataclass(frozen=True)
class Cosines:
    """Cosines of n adapters, each matrix (n, n). An adapter without an update, or a pair without a common layer, has cosine 0."""

    whole: Doubles  # a layer that only one of the two adapts counts as an update of zero in the other
    common: Doubles  # over the layers that both adapt
    layers: npt.NDArray[np.int64]  # how many those are


def cosines(updates: Sequence[Update]) -> Cosines:
    """The exact cosines of all pairs. Layers with the same path and different shapes belong to different bases and are not common."""
    members_of: dict[tuple[str, tuple[int, int]], list[int]] = {}
    for index, update in enumerate(updates):
        for path, factors in update.items():
            members_of.setdefault((path, factors.shape), []).append(index)
    count = len(updates)
    products = np.zeros((count, count))
    squares = np.zeros((count, len(members_of)))  # |X_l|^2 of every adapter and layer
    for column, ((path, _), members) in enumerate(members_of.items()):
        block = _products([updates[index][path] for index in members])
        products[np.ix_(members, members)] += block
        squares[members, column] = np.diagonal(block)
    adapted = np.zeros_like(squares)
    for column, members in enumerate(members_of.values()):
        adapted[members, column] = 1.0
    squares = squares.clip(min=0.0)  # rounding errors can make a square slightly negative
    whole = np.sqrt(squares.sum(axis=1))
    common = np.sqrt(squares @ adapted.T)
    return Cosines(
        _divided(products, np.outer(whole, whole)),
        _divided(products, common * common.T),
        np.rint(adapted @ adapted.T).astype(np.int64),
    )


def _products(layer: Sequence[Factors]) -> Doubles:
    """<X, Y> of every pair of updates of one layer: the Gram matrices of all their ranks together, multiplied and summed by block."""
    a = np.concatenate([factors.a for factors in layer])
    b = np.concatenate([factors.b * np.float32(factors.scaling) for factors in layer], axis=1)
    starts = np.cumsum([0] + [len(factors.a) for factors in layer[:-1]])
    entries = (a @ a.T) * (b.T @ b)
    rows = np.add.reduceat(entries, starts, axis=0, dtype=np.float64)
    products: Doubles = np.add.reduceat(rows, starts, axis=1)
    return products


def _divided(products: Doubles, norms: Doubles) -> Doubles:
    quotients = np.zeros_like(products)
    np.divide(products, norms, out=quotients, where=norms > 0)
    return quotients.clip(-1.0, 1.0)


# --- sketches ---------------------------------------------------------------------------------------------------------


def sketch(layers: Iterable[tuple[str, Factors]]) -> Floats:
    """WIDTH numbers whose dot product with another sketch estimates the Frobenius product of the two updates.

    The signs are SHAKE-256 hashes of their position, not random draws: every process of every release must use the same signs.
    All layers share the signs of their rows and columns; an extra sign per layer and number makes layers independent.
    """
    total = np.zeros(WIDTH)
    for path, factors in layers:
        inner = _measured(factors.a, "in") * _measured(factors.b.T, "out")
        total += factors.scaling * inner.sum(axis=0, dtype=np.float64) * _signs(f"layer {path}", 1)[0]
    return total.astype(np.float32)


def _measured(matrix: Floats, side: str) -> Floats:
    """(r, d) -> (r, WIDTH): the rows' products with WIDTH sign vectors, one tile at a time."""
    total = np.zeros((len(matrix), WIDTH), np.float32)
    for start in range(0, matrix.shape[1], TILE):
        part = matrix[:, start : start + TILE]
        total += part @ _tile(f"{side} {start}", TILE)[: part.shape[1]]
    return total


def _signs(what: str, rows: int) -> Floats:
    """(rows, WIDTH) of +1 and -1."""
    bits = np.frombuffer(hashlib.shake_256(what.encode()).digest(rows * WIDTH // 8), np.uint8)
    return (1 - 2 * np.unpackbits(bits).astype(np.float32)).reshape(rows, WIDTH)


_tile = lru_cache(maxsize=16)(_signs)  # 64 MiB at most, enough for layers 16,384 wide


def sketched_cosines(ones: Floats, others: Floats) -> Doubles:
    """(n, WIDTH) and (m, WIDTH) -> (n, m). The standard error of an entry c is about (1 - c^2) / sqrt(WIDTH): 0.002 at 0.98, 0.04 at 0."""
    x, y = ones.astype(np.float64), others.astype(np.float64)
    return _divided(x @ y.T, np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)))


# --- map ------------------------------------------------------------------------------------------------


def near_duplicates(cosine: Doubles, least: float = DUPLICATE) -> list[tuple[int, int, float]]:
    """(i, j, cosine) of pairs i < j with at least this cosine, highest first."""
    rows, columns = np.nonzero(np.triu(cosine >= least, k=1))
    pairs = [(int(i), int(j), float(cosine[i, j])) for i, j in zip(rows, columns, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def clusters(cosine: Doubles, least: float) -> list[list[int]]:
    """Clusters by average linkage: join the two clusters with the highest mean cosine, while it is at least `least`.

    Every adapter is in exactly one cluster; the largest come first. Single linkage would chain dissimilar adapters.
    """
    groups = [[index] for index in range(len(cosine))]
    sums = cosine.copy()  # of the cosines between two clusters
    np.fill_diagonal(sums, -np.inf)
    sizes = np.ones(len(cosine))
    while len(groups) > 1:
        means = sums / np.outer(sizes, sizes)
        first, second = sorted(int(place) for place in np.unravel_index(int(means.argmax()), means.shape))
        if means[first, second] < least:
            break
        groups[first] = sorted(groups[first] + groups.pop(second))
        sums[first] += sums[second]
        sums[:, first] += sums[:, second]
        sizes[first] += sizes[second]
        sums[first, first] = -np.inf
        sums = np.delete(np.delete(sums, second, axis=0), second, axis=1)
        sizes = np.delete(sizes, second)
    return sorted(groups, key=lambda group: (-len(group), group))


def layout(cosine: Doubles) -> tuple[Doubles, float]:
    """(coordinates in the plane (n, 2), the share of the squared distances that they explain): classical scaling (Torgerson 1952).

    The squared distance of two updates of length one is 2 (1 - cosine), so the matrix to decompose is that of the centred cosines.
    The signs of a decomposition are arbitrary: on both axes the adapter farthest from the centre has a positive coordinate.
    """
    if len(cosine) < 2:
        return np.zeros((len(cosine), 2)), 1.0
    centred = cosine - cosine.mean(axis=0) - cosine.mean(axis=1)[:, None] + cosine.mean()
    values, vectors = np.linalg.eigh(centred)
    values = values.clip(min=0.0)  # sketched cosines need not be those of any vectors
    places = (vectors * np.sqrt(values))[:, [-1, -2]]
    far = places[np.abs(places).argmax(axis=0), [0, 1]]
    share = values[-2:].sum() / values.sum() if values.any() else 1.0
    return places * np.where(far < 0, -1.0, 1.0), float(share)
