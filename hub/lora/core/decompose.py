"""Exact singular value decompositions of weights, cached by content, since a base is reduced for more than one task."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class SVD:
    """u (out, k), sigma (k,) in descending order, vt (k, in), with k the smaller side; float32 on the matrix's device."""

    u: Tensor
    sigma: Tensor
    vt: Tensor


Decompose = Callable[[Tensor], SVD]


def svd(matrix: Tensor) -> SVD:
    """The decomposition of a matrix (out, in) in float32."""
    matrix = matrix.float()
    if len(matrix) > matrix.shape[1]:
        # Measured: LAPACK takes five times as long for a tall matrix as for its transpose.
        v, sigma, ut = torch.linalg.svd(matrix.T, full_matrices=False)
        return SVD(ut.T, sigma, v.T)
    return SVD(*torch.linalg.svd(matrix, full_matrices=False))


class CachedSVD:
    """`svd` with a cache on disk, keyed by the SHA-256 of the matrix. Evicts least recently used entries beyond `limit` bytes.

    Several processes may share a folder.
    """

    def __init__(self, folder: Path, limit: int = 8 * 2**30) -> None:
        self.folder, self.limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        self._cached_bytes = sum(path.stat().st_size for path in folder.iterdir())

    def __call__(self, matrix: Tensor) -> SVD:
        path = self.folder / f"{_digest(matrix)}.safetensors"
        try:
            tensors = load_file(path)
            os.utime(path)
        except (FileNotFoundError, SafetensorError):  # a cache miss, or a file truncated by a full disk
            result = svd(matrix)
            self._store(path, {"u": result.u, "sigma": result.sigma, "vt": result.vt})
            return result
        return SVD(**{name: tensor.to(matrix.device) for name, tensor in tensors.items()})

    def _store(self, path: Path, tensors: dict[str, Tensor]) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as scratch:
            fresh = Path(scratch) / "svd"
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, fresh)
            self._cached_bytes += fresh.stat().st_size
            fresh.replace(path)
        if self._cached_bytes > self.limit:
            self._evict()

    def _evict(self) -> None:
        files = [(path, path.stat()) for path in self.folder.iterdir()]
        self._cached_bytes = sum(facts.st_size for _, facts in files)
        for path, facts in sorted(files, key=lambda file: file[1].st_mtime):
            if self._cached_bytes <= self.limit * 3 // 4:  # so that the next entry does not evict again
                break
            path.unlink(missing_ok=True)
            self._cached_bytes -= facts.st_size


def _digest(matrix: Tensor) -> str:
    plain = matrix.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()
