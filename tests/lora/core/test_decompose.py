"""hub.lora.core.decompose: exact for tall and wide matrices, and once for each content."""

from pathlib import Path

import pytest
import torch

from hub.lora.core import decompose
from hub.lora.core.decompose import CachedSVD, svd


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (8, 8), (1, 5), (5, 1)])
def test_the_parts_make_the_matrix_again(shape: tuple[int, int]) -> None:
    given = matrix(*shape)
    found = svd(given)
    torch.testing.assert_close((found.u * found.sigma) @ found.vt, given, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.sigma, torch.linalg.svdvals(given))
    assert (found.u.shape[1], found.vt.shape[0]) == (min(shape), min(shape))


def test_a_matrix_is_decomposed_once_and_another_of_the_same_shape_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counting(given: torch.Tensor) -> decompose.SVD:
        asked.append(tuple(given.shape))
        return svd(given)

    monkeypatch.setattr(decompose, "svd", counting)
    kept, given = CachedSVD(tmp_path / "svd"), matrix(20, 8)
    first, again = kept(given), CachedSVD(tmp_path / "svd")(given.clone())
    assert asked == [(20, 8)]
    for name in ("u", "sigma", "vt"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    kept(matrix(20, 8, seed=1))
    kept(given.T)
    kept(given.bfloat16())
    assert len(asked) == 4


def test_what_was_cut_off_is_made_again(tmp_path: Path) -> None:
    kept, given = CachedSVD(tmp_path / "svd"), matrix(20, 8)
    kept(given)
    (file,) = (tmp_path / "svd").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    torch.testing.assert_close(kept(given).sigma, torch.linalg.svdvals(given))
    assert len(file.read_bytes()) > 50


def test_what_was_not_asked_for_the_longest_goes_first(tmp_path: Path) -> None:
    size = 4 * (40 * 40 * 2 + 40)
    kept = CachedSVD(tmp_path / "svd", limit=4 * size + size // 2)
    for seed in range(3):
        kept(matrix(40, 40, seed))
    oldest = {path.name for path in (tmp_path / "svd").iterdir()}
    kept(matrix(40, 40, 0))  # asked for again, so the second is the oldest now
    kept(matrix(40, 40, 3))
    kept(matrix(40, 40, 4))
    left = {path.name for path in (tmp_path / "svd").iterdir()}
    assert len(left) == 3
    assert len(left & oldest) == 1
    assert f"{decompose._digest(matrix(40, 40, 0))}.safetensors" in left
