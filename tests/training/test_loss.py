"""The loss and its gradient, against those of torch's own functions over all logits."""

from __future__ import annotations

import pytest
import torch

from memorag_pipeline.training import loss as module
from memorag_pipeline.training.loss import IGNORED, loss_sum

ROWS, HIDDEN, VOCABULARY = 23, 8, 31


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGITS", 4 * VOCABULARY)


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator, requires_grad=True)
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    targets[3:6] = IGNORED
    return hidden, head, targets


def test_next_token_loss() -> None:
    hidden, head, targets = example()
    found = loss_sum(hidden, head, targets)
    (gradient,) = torch.autograd.grad(found * 0.5, hidden)
    wanted = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="sum")
    (wanted_gradient,) = torch.autograd.grad(wanted * 0.5, hidden)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_distance_to_a_teacher(share: float) -> None:
    hidden, head, targets = example()
    teacher = torch.randn(ROWS, HIDDEN, generator=torch.Generator().manual_seed(2))
    shares = torch.full((ROWS,), share)
    shares[:8] = 0
    found = loss_sum(hidden, head, targets, teacher, shares)
    (gradient,) = torch.autograd.grad(found, hidden)
    log_p, t = (hidden @ head.T).log_softmax(-1), (teacher @ head.T).softmax(-1)
    counted = targets != IGNORED
    entropy = torch.nn.functional.nll_loss(log_p, targets, reduction="none", ignore_index=IGNORED)
    distance = (t * (t.log() - log_p)).sum(-1)
    wanted = ((1 - shares) * entropy + shares * distance)[counted].sum()
    (wanted_gradient,) = torch.autograd.grad(wanted, hidden)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)


def test_no_label_is_no_loss() -> None:
    hidden, head, targets = example()
    found = loss_sum(hidden, head, torch.full_like(targets, IGNORED))
    (gradient,) = torch.autograd.grad(found, hidden)
    assert found.item() == 0 and not gradient.any()


def test_a_gpu_gets_larger_products() -> None:
    with pytest.MonkeyPatch.context() as usual:
        usual.setattr(module, "_LOGITS", 2**25)
        assert module._rows_at_once(torch.device("cpu"), 152_064) == 220
        assert module._rows_at_once(torch.device("cuda", 0), 152_064) == 1765
        assert module._rows_at_once(torch.device("cuda", 0), 2**29) == 1
