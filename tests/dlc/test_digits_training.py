"""The digits network learns, and its loss and update agree with torch's."""

import pytest
import torch
import torch.nn.functional as F

from dlc.digits import adamw, cross_entropy, train


def test_loss_and_its_gradient():
    logits, labels = torch.randn(9, 10, requires_grad=True), torch.randint(0, 10, (9,))
    cross_entropy(logits, labels).backward()
    other = logits.detach().clone().requires_grad_()
    loss = F.cross_entropy(other, labels)
    loss.backward()
    torch.testing.assert_close(cross_entropy(logits.detach(), labels), loss.detach())
    torch.testing.assert_close(logits.grad, other.grad)


def test_update():
    p, g = torch.randn(77), torch.randn(77)
    w = p.clone().requires_grad_()
    optimiser = torch.optim.AdamW([w], 2e-3)
    w.grad = g
    optimiser.step()
    new, _, _ = adamw(p, g, torch.zeros(77), torch.zeros(77), 2e-3, 1 - 0.9, 1 - 0.999)
    torch.testing.assert_close(new, w.detach(), rtol=1e-5, atol=1e-6)


def test_learns():
    pytest.importorskip("sklearn")
    from dlc.data.digits import load_digits

    history = train(load_digits(), epochs=25)
    assert history.accuracy[-1] >= 0.96 and history.loss[-1] < 0.1 * history.loss[0]
