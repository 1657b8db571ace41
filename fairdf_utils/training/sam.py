"""Sharpness-aware minimisation: a two-pass optimizer around any torch optimizer.

Pass one takes the gradient at w and steps uphill to w + rho * g / |g|; pass two takes the gradient there, returns to
w and lets the base optimizer use it. Both passes must see the same function: same dropout masks, same triplets, and
batch-norm statistics counted once (`encoders.frozen_batch_norm`).

Source: Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization", ICLR;
Lin et al. 2024, loss flattening.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class SAM(torch.optim.Optimizer):
    """SAM around the optimizer that `base_optimizer` makes of (params, **base_kwargs).

    `rho` >= 0 is the radius of the uphill step (0.05 in the paper); a parameter group may have its own. The two
    optimizers share parameter groups and state: learning-rate schedulers act on both, and `state_dict` holds the base's
    momentum. Gradients are the caller's to zero, before each backward pass.
    """

    def __init__(self, params: Iterable, base_optimizer: Callable, rho: float = 0.05, **base_kwargs):
        if rho < 0:
            raise ValueError(f"rho must not be negative, is {rho}")
        self.base = base_optimizer(params, **base_kwargs)
        super().__init__(self.base.param_groups, {**self.base.defaults, "rho": rho})
        self._share()
        self._moved, self._origin = [], []

    @torch.no_grad()
    def first_step(self) -> None:
        """Moves to w + rho * g / (|g| + 1e-12), |g| the norm over all parameters that have a gradient."""
        if self._moved:
            raise RuntimeError("first_step() was called twice: call second_step() to return before moving again")
        groups = [(group["rho"], [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        groups = [(rho, moved) for rho, moved in groups if moved]
        if not groups:
            raise RuntimeError("no parameter has a gradient: call backward() before first_step()")
        norms = torch._foreach_norm([p.grad for _, moved in groups for p in moved])
        norm = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
        for rho, moved in groups:
            origin = [torch.empty_like(p) for p in moved]
            torch._foreach_copy_(origin, moved)  # a copy: subtracting the step would not restore every bit
            torch._foreach_add_(moved, torch._foreach_mul([p.grad for p in moved], rho / (norm + 1e-12)))
            self._moved += moved
            self._origin += origin

    @torch.no_grad()
    def second_step(self) -> None:
        """Returns to w, bit for bit, and applies the base optimizer with the gradients at the moved point."""
        if not self._moved:
            raise RuntimeError("second_step() without first_step()")
        torch._foreach_copy_(self._moved, self._origin)
        self._moved, self._origin = [], []
        self.base.step()
        self._opt_called = True  # schedulers warn unless they see that their optimizer has stepped

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Both passes. Returns the loss of the first.

        `closure` zeroes the gradients, computes the loss, calls backward and returns the loss, the same function twice.
        """
        if closure is None:
            raise TypeError("SAM.step needs a closure that runs forward and backward; it is called twice")
        loss = closure()
        self.first_step()
        closure()
        self.second_step()
        return loss

    def state_dict(self) -> dict:
        """The base optimizer's state (momentum, schedules), with rho in its groups."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        """Restores `state_dict`'s result; the groups stay shared with the base."""
        self.base.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state
