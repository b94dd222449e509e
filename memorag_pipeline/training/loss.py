"""The loss of predicted tokens, without ever holding the logits of all of them.

In:  hidden states before the head, the tokens that follow, and if it is distilled the teacher's hidden states.
Out: the sum of losses (nats), and how many labels there are.

The head is frozen, so the gradient at the hidden states is known as soon as the logits are: (softmax - target) @ head,
target being the token that follows, the teacher's softmax, or a mix of both. It is computed with the loss, some rows at
a time, and the logits are dropped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
# Logits that are held at a time; on a GPU as many as make products of 1,000 rows and more, a few GB.
_LOGITS, _GPU_LOGITS = 2**25, 2**28


def loss_sum(
    hidden: Tensor, head: Tensor, targets: Tensor, teacher: Tensor | None = None, share: Tensor | None = None
) -> Tensor:
    """Sum over rows of (1 - share) * cross-entropy + share * KL(teacher, student), float32.

    hidden [rows, hidden size] after the last norm; head [vocabulary, hidden size], frozen; targets int64 [rows],
    IGNORED where a row does not count; teacher as hidden, share float32 [rows].
    """
    counted = targets != IGNORED
    hidden, targets = hidden[counted], targets[counted]
    if teacher is not None and share is not None:
        teacher, share = teacher[counted], share[counted]
    result: Tensor = _HeadLoss.apply(hidden, head, targets, teacher, share)
    return result


def _rows_at_once(device: torch.device, vocabulary: int) -> int:
    return max(1, (_GPU_LOGITS if device.type == "cuda" else _LOGITS) // vocabulary)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, teacher: Tensor | None, share: Tensor | None
    ) -> Tensor:
        total, gradient = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(hidden)
        rows = _rows_at_once(hidden.device, len(head))
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            log_p = (hidden[part] @ head.T).float().log_softmax(-1)
            target = targets[part, None]
            losses = -log_p.gather(1, target)[:, 0]
            if teacher is None or share is None:
                total += losses.sum()
                wanted = log_p.exp_().scatter_add_(1, target, -torch.ones_like(target, dtype=torch.float32))
            else:
                kept = 1 - share[part]
                log_t = (teacher[part] @ head.T).float().log_softmax(-1)
                t = log_t.exp()
                distance = (t * (log_t - log_p)).sum(-1)
                total += (kept * losses + share[part] * distance).sum()
                wanted = log_p.exp_().sub_(t.mul_(share[part, None]))
                wanted.scatter_add_(1, target, -kept[:, None])
            gradient[part] = wanted.to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None, None, None
