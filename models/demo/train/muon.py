"""The optimizer of the hidden matrices."""
import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised (Newton-Schulz in bf16), equal shapes in one batch.
    A convolution counts as a matrix with a row per output channel. Parameters without a gradient stay as they are."""

    STEPS = ((8.28721, -23.59589, 17.30039), (4.10706, -2.94785, 0.54484), (3.94869, -2.90890, 0.55182), (3.31842, -2.48849, 0.51005))

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                rows = p.shape[0]
                shapes.setdefault(tuple(sorted((rows, p.numel() // rows))), []).append(p)
            for same in shapes.values():
                updates = []
                for p in same:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    u = p.grad.lerp(m, group["momentum"])
                    u = u.reshape(u.shape[0], -1)
                    updates.append(u.T if u.shape[0] > u.shape[1] else u)
                x = torch.stack(updates)
                x = (x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7)).bfloat16()
                for a, b, c in self.STEPS:
                    y = x @ x.mT
                    x = a * x + (b * y + c * (y @ y)) @ x
                rate = group["lr"] * 0.2 * max(x.shape[1:]) ** 0.5         # root mean square as with Adam
                for p, u in zip(same, x.float()):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_((u.T if p.shape[0] > p.numel() // p.shape[0] else u).reshape(p.shape), alpha=-rate)
