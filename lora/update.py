"""An adapter's update of one linear, taken apart: which directions it reads, which it writes, and how strongly.

    U = s B A = left diag(values) right^T        (Golub and Van Loan, Matrix Computations, section 2.4: the thin SVD)

Computed in float64 from the thin factors' triangles: B = Q_B R_B and A^T = Q_A R_A, so U has the singular values of the
small matrix s R_B R_A^T, and no matrix of the linear's own size is ever made.
"""

import torch

from lora.layer import LoRALinear

TINY = 1e-10  # of the largest singular value: directions below that are rounding


def thin_svd(layer: LoRALinear) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """left (out, k), values (k,) falling, right (in, k), float64 on the CPU; k at most r, without directions that are
    rounding alone."""
    b, a = layer.lora_B.detach().double().cpu(), layer.lora_A.detach().double().cpu()
    (q_b, r_b), (q_a, r_a) = torch.linalg.qr(b), torch.linalg.qr(a.T)
    left, values, right = torch.linalg.svd(layer.scaling * r_b @ r_a.T)
    kept = int((values > TINY * values.max()).sum()) if float(values.max()) else 0
    return (q_b @ left)[:, :kept], values[:kept], (q_a @ right.T)[:, :kept]
