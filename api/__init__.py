"""The HTTP door: validates, calls one service function in one transaction, answers. No torch, no training code."""
