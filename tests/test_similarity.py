"""Likeness of updates: factors against dense matrices, sketches against their stated error, duplicates and clusters as drawn."""

from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from hub.similarity import WIDTH, Factors, clusters, cosines, layout, near_duplicates, sketch, sketched_cosines

Update = dict[str, Factors]  # by path

SHAPES = {"q": (24, 16), "k": (8, 16), "up": (40, 16), "down": (16, 40)}


def update(seed: int, *, rank: int = 4, layers: tuple[str, ...] = tuple(SHAPES), scaling: float = 2.0) -> Update:
    random = np.random.default_rng(seed)
    return {
        path: Factors(
            random.standard_normal((rank, SHAPES[path][1])).astype(np.float32),
            random.standard_normal((SHAPES[path][0], rank)).astype(np.float32),
            scaling,
        )
        for path in layers
    }


def dense(update: Update) -> dict[str, np.ndarray]:
    return {path: f.scaling * f.b.astype(np.float64) @ f.a.astype(np.float64) for path, f in update.items()}


def dense_cosine(one: Update, other: Update, layers: Iterable[str]) -> float:
    def flat(update: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([update.get(path, np.zeros(SHAPES[path])).ravel() for path in sorted(layers)])

    x, y = flat(dense(one)), flat(dense(other))
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def mixed(one: Update, other: Update, share: float) -> Update:
    """An update near `one`: its factors moved a little towards another's, at another scaling and sign of both factors."""
    return {
        path: Factors(-(f.a + share * other[path].a), -(f.b + share * other[path].b) * 4, f.scaling / 4)
        for path, f in one.items()
    }


def test_cosines_are_those_of_the_dense_updates() -> None:
    modules = [
        update(0),
        update(1, rank=2, scaling=0.5),
        update(2, rank=7, layers=("q", "up")),
        update(3, layers=("k", "q")),
        mixed(update(0), update(4), 0.3),
    ]
    found = cosines(modules)
    for i, one in enumerate(modules):
        for j, other in enumerate(modules):
            common = one.keys() & other.keys()
            assert found.whole[i, j] == pytest.approx(dense_cosine(one, other, SHAPES), abs=2e-6)
            assert found.common[i, j] == pytest.approx(dense_cosine(one, other, common), abs=2e-6)
            assert found.layers[i, j] == len(common)
    assert found.whole[0, 4] > 0.8
    assert found.common[2, 3] != pytest.approx(found.whole[2, 3], abs=1e-4)


def test_nothing_in_common_is_cosine_zero_and_not_an_error() -> None:
    zero = {path: Factors(f.a, 0 * f.b, f.scaling) for path, f in update(5).items()}
    resized = {"q": Factors(np.ones((2, 99), np.float32), np.ones((24, 2), np.float32), 1.0)}
    found = cosines([update(0, layers=("q",)), update(1, layers=("down",)), zero, resized, {}])
    off = ~np.eye(5, dtype=bool)
    assert (found.whole[off] == 0).all()
    assert (found.common[off] == 0).all()
    assert found.layers[0, 2] == 1
    assert found.layers[0, 3] == 0


def test_the_same_update_written_otherwise_is_the_same() -> None:
    """B A = (B M)(M^-1 A): factors of other rank and size, and an exact copy of the update."""
    one = update(0)
    twin = {
        path: Factors(np.concatenate([f.a, f.a]), np.concatenate([0.25 * f.b, 0.75 * f.b], axis=1), f.scaling)
        for path, f in one.items()
    }
    assert cosines([one, twin]).whole[0, 1] == pytest.approx(1, abs=1e-6)
    sketches = np.stack([sketch(one.items()), sketch(twin.items())])
    assert sketched_cosines(sketches[:1], sketches)[0, 1] == pytest.approx(1, abs=1e-5)


def test_sketches_err_as_much_as_they_say() -> None:
    """400 pairs from unlike to near duplicates: the errors, each over its stated standard error, have a spread of about 1."""
    worst = []
    for share in (0.05, 0.1, 0.3, 1.0, 100.0):
        modules = [update(seed) for seed in range(40)]
        modules += [mixed(update(seed), update(seed + 500), share) for seed in range(40)]
        exact = cosines(modules).whole
        sketches = np.stack([sketch(module.items()) for module in modules])
        estimated = sketched_cosines(sketches, sketches)
        pairs = [(seed, seed + 40) for seed in range(40)]
        errors = np.array([(estimated[p] - exact[p]) * WIDTH**0.5 / (1 - exact[p] ** 2) for p in pairs])
        worst.append(float(np.sqrt((errors**2).mean())))
    assert min(worst) > 0.5
    assert max(worst) < 1.6
    assert abs(errors.mean()) < 4 / 40**0.5 * 1.6, "without bias"


def test_a_sketch_is_the_same_in_every_release() -> None:
    """Sketches are kept: one drawn otherwise would make every older module look unlike."""
    a = np.arange(1, 41, dtype=np.float32).reshape(2, 20) ** 2
    b = np.arange(1, 25, dtype=np.float32).reshape(12, 2)
    found = sketch([("model.layers.0.q_proj", Factors(a, b, 0.5)), ("model.layers.1.q_proj", Factors(a, b, 0.25))])
    assert found[:6].tolist() == [-81327, -92864, 0, 87366, 25035, 304110]


def test_near_duplicates_most_alike_first() -> None:
    cosine = np.array([[1, 0.99, 0.2], [0.99, 1, 0.985], [0.2, 0.985, 1]])
    assert near_duplicates(cosine) == [(0, 1, 0.99), (1, 2, 0.985)]
    assert near_duplicates(cosine, 0.999) == []


def test_clusters_are_the_families_drawn() -> None:
    families = [[mixed(update(family), update(100 * family + k), 0.3) for k in range(1, 5)] for family in (1, 2, 3)]
    order = np.random.default_rng(0).permutation(12)
    members = [families[place // 4][place % 4] for place in order]
    found = clusters(cosines([*members, update(77)]).whole, 0.5)
    assert sorted(sorted({int(order[i]) // 4 for i in group}) for group in found if 12 not in group) == [[0], [1], [2]]
    assert [12] in found
    assert sorted(index for group in found for index in group) == list(range(13))


def test_clusters_do_not_chain() -> None:
    """A row of modules, each like its neighbour and unlike the next but one, is not one cluster."""
    angles = np.arange(6) * np.pi / 5
    cosine = np.cos(angles[:, None] - angles[None, :])
    found = clusters(cosine, 0.5)
    assert all(cosine[np.ix_(group, group)].mean() >= 0.5 for group in found)
    assert len(found) > 1
    assert clusters(np.zeros((0, 0)), 0.5) == []


def test_a_layout_keeps_distances_that_a_plane_can_hold() -> None:
    angles = np.array([0.0, 0.4, 1.1, 2.0, 4.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    places, share = layout(vectors @ vectors.T)
    assert share == pytest.approx(1.0)
    for i in range(5):
        for j in range(5):
            squared = float(((places[i] - places[j]) ** 2).sum())
            assert squared == pytest.approx(2 - 2 * float(vectors[i] @ vectors[j]), abs=1e-9)
    assert (places[np.abs(places).argmax(axis=0), [0, 1]] > 0).all(), "the same picture however signs fall"


def test_a_layout_says_how_much_it_cannot_show() -> None:
    places, share = layout(np.eye(11))
    assert share == pytest.approx(0.2), "ten directions of equal length, and two are shown"
    assert places.shape == (11, 2)
    for few in (0, 1):
        assert layout(np.ones((few, few)))[0].shape == (few, 2)
    assert np.isfinite(layout(np.ones((3, 3)))[0]).all(), "all the same"
