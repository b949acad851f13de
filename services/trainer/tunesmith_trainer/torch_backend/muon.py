"""Muon: momentum whose update is orthogonalised, for the weight matrices of small models.

On `builtin:tiny` it needs about half the steps of AdamW. It differs from `torch.optim.Muon` in working on all
matrices of one shape at once and in float32, both of which matter on a CPU.

Shape suffixes: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

# Polynomial coefficients of the first three Polar Express iterations (Amsel and others, arXiv:2505.16932, listing 1).
# Three take the singular values close enough to 1 for training.
_COEFFICIENTS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)


def orthogonalised(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, roughly: every singular value is moved towards 1. Same shape, float32."""
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x_NRC = matrices_NRC.mT if tall else matrices_NRC
    x_NRC = x_NRC / (x_NRC.norm(dim=(1, 2), keepdim=True) * 1.01 + 1e-7)
    for a, b, c in _COEFFICIENTS:
        gram_NRR = torch.bmm(x_NRC, x_NRC.mT)
        poly_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, poly_NRR, x_NRC, beta=a)
    return x_NRC.mT if tall else x_NRC


class Muon:
    """Steps all given matrices with Nesterov momentum and decoupled weight decay.

    `learning_rate` may be set between steps. The state is one momentum tensor for each shape, in order of first use.
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._momentum = momentum
        self._by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            self._by_shape.setdefault(matrix.shape, []).append(matrix)
        self._averages_NRC = [torch.zeros(len(group), *shape) for shape, group in self._by_shape.items()]

    @torch.no_grad()
    def step(self) -> None:
        """Apply one update from the gradients, which stay as they are."""
        for (shape, group), average_NRC in zip(self._by_shape.items(), self._averages_NRC, strict=True):
            gradient_NRC = torch.stack([p.grad for p in group if p.grad is not None])
            average_NRC.lerp_(gradient_NRC, 1 - self._momentum)
            update_NRC = orthogonalised(torch.lerp(gradient_NRC, average_NRC, self._momentum))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, update_RC in zip(group, update_NRC, strict=True):
                parameter.mul_(1 - self.learning_rate * self._weight_decay)
                parameter.add_(update_RC, alpha=-self.learning_rate * scale)

    def state(self) -> list[torch.Tensor]:
        """The momentum tensors, to be saved."""
        return self._averages_NRC

    def load_state(self, averages_NRC: Iterable[torch.Tensor]) -> None:
        """The inverse of `state`."""
        for mine, saved in zip(self._averages_NRC, averages_NRC, strict=True):
            mine.copy_(saved)
