"""The chosen arithmetic is the one that the processor is clearly faster with."""

import pytest
import torch

from models import arithmetic


@pytest.mark.parametrize(("fp32", "bf16", "wanted"), [(2.0, 1.0, True), (1.4, 1.0, False), (1.0, 1.6, False)])
def test_bf16_must_be_clearly_faster(monkeypatch, fp32, bf16, wanted):
    taken = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(arithmetic, "_seconds", lambda dtype: taken[dtype])
    assert arithmetic.bf16_is_faster.__wrapped__() is wanted


@pytest.mark.parametrize(("faster", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_products_are_computed_in_the_faster_arithmetic(monkeypatch, faster, dtype):
    monkeypatch.setattr(arithmetic, "bf16_is_faster", lambda: faster)
    with arithmetic.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
