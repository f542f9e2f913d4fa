"""The arithmetic is that which the processor is clearly faster with."""

import pytest
import torch

from models import arithmetic


@pytest.mark.parametrize(("fp32", "bf16", "wanted"), [(2.0, 1.0, True), (1.4, 1.0, False), (1.0, 1.6, False)])
def test_bf16_must_be_clearly_faster(monkeypatch, fp32, bf16, wanted):
    taken = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(arithmetic, "_seconds", lambda dtype: taken[dtype])
    assert arithmetic.bf16_is_faster.__wrapped__() is wanted


def test_one_process_answers_always_the_same():
    answer = arithmetic.bf16_is_faster()
    with arithmetic.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if answer else torch.float32)
    assert arithmetic.bf16_is_faster() is answer
