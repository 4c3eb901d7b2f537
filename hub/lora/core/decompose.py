"""Exact singular value decompositions of weights, kept by their content, since a base is reduced for more than one task."""

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
    """u (out, k), sigma (k,) in falling order, vt (k, in), with k the smaller side; float32 on the matrix's device."""

    u: Tensor
    sigma: Tensor
    vt: Tensor


Decompose = Callable[[Tensor], SVD]


def svd(matrix: Tensor) -> SVD:
    """The decomposition of a matrix (out, in) in float32."""
    matrix = matrix.float()
    if len(matrix) > matrix.shape[1]:
        # LAPACK's tall case was measured to take five times as long as the same matrix on its side.
        v, sigma, ut = torch.linalg.svd(matrix.T, full_matrices=False)
        return SVD(ut.T, sigma, v.T)
    return SVD(*torch.linalg.svd(matrix, full_matrices=False))


class Kept:
    """`svd` with what it found kept in a folder, the matrix's SHA-256 as its name. What was not asked for the longest goes first
    when there is more than `limit` bytes. Several processes may share a folder."""

    def __init__(self, folder: Path, limit: int = 8 * 2**30) -> None:
        self.folder, self.limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        self._held = sum(path.stat().st_size for path in folder.iterdir())

    def __call__(self, matrix: Tensor) -> SVD:
        place = self.folder / f"{_digest(matrix)}.safetensors"
        try:
            tensors = load_file(place)
            os.utime(place)
        except (FileNotFoundError, SafetensorError):  # not there, or cut off by a full disk
            found = svd(matrix)
            self._keep(place, {"u": found.u, "sigma": found.sigma, "vt": found.vt})
            return found
        return SVD(**{name: tensor.to(matrix.device) for name, tensor in tensors.items()})

    def _keep(self, place: Path, tensors: dict[str, Tensor]) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as scratch:
            fresh = Path(scratch) / "svd"
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, fresh)
            self._held += fresh.stat().st_size
            fresh.replace(place)
        if self._held > self.limit:
            self._make_room()

    def _make_room(self) -> None:
        files = [(path, path.stat()) for path in self.folder.iterdir()]
        self._held = sum(facts.st_size for _, facts in files)
        for path, facts in sorted(files, key=lambda file: file[1].st_mtime):
            if self._held <= self.limit * 3 // 4:  # so that the next one does not ask again
                break
            path.unlink(missing_ok=True)
            self._held -= facts.st_size


def _digest(matrix: Tensor) -> str:
    plain = matrix.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()
