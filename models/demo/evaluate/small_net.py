"""A classifier of one hidden layer, numpy only: standardised inputs, ReLU, softmax; Adam with a falling rate and weight decay."""
import numpy as np

F = np.float32


def train(x, label, n_classes, hidden=64, epochs=30, batch=256, rate=3e-3, decay=1e-4, drop=0.0, seed=0):
    rng = np.random.default_rng(seed)
    mean, std = x.mean(0), x.std(0) + 1e-4
    x = ((x - mean) / std).astype(F)
    np.clip(x, -6, 6, x)
    sizes = [x.shape[1], hidden, n_classes]
    p = [a for i in range(2) for a in ((rng.standard_normal((sizes[i], sizes[i + 1])) * np.sqrt(2 / sizes[i])).astype(F), np.zeros(sizes[i + 1], F))]
    m, v = [np.zeros_like(a) for a in p], [np.zeros_like(a) for a in p]
    step, steps = 0, epochs * ((len(x) + batch - 1) // batch)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for at in range(0, len(x), batch):
            rows = order[at:at + batch]
            a = x[rows]
            if drop > 0:
                a = a * (rng.random(a.shape) > drop) / F(1 - drop)
            h = np.maximum(a @ p[0] + p[1], 0)
            z = h @ p[2] + p[3]
            z = np.exp(z - z.max(1, keepdims=True))
            z /= z.sum(1, keepdims=True)
            z[np.arange(len(rows)), label[rows]] -= 1
            z /= len(rows)
            g = (z @ p[2].T) * (h > 0)
            grads = [a.T @ g + F(decay) * p[0], g.sum(0), h.T @ z + F(decay) * p[2], z.sum(0)]
            step += 1
            lr = rate * min(1, step / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
            for i, d in enumerate(grads):
                m[i] = F(0.9) * m[i] + F(0.1) * d
                v[i] = F(0.99) * v[i] + F(0.01) * d * d
                p[i] -= F(lr) * (m[i] / F(1 - 0.9 ** step)) / (np.sqrt(v[i] / F(1 - 0.99 ** step)) + F(1e-8))
    return dict(mean=mean.astype(F), std=std.astype(F), w0=p[0], b0=p[1], w1=p[2], b1=p[3])


def logits(net, x):
    a = np.clip((x - net["mean"]) / net["std"], -6, 6).astype(F)
    return np.maximum(a @ net["w0"] + net["b0"], 0) @ net["w1"] + net["b1"]


def log_probs(net, x):
    z = logits(net, x)
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def pack(nets):
    """{name: net} -> arrays for np.savez; matrices in half precision."""
    return {f"{name}.{k}": v.astype(np.float16) if k.startswith("w") else v.astype(F) for name, net in nets.items() for k, v in net.items()}


def unpack(arrays, name):
    return {k: arrays[f"{name}.{k}"].astype(F) for k in ("mean", "std", "w0", "b0", "w1", "b1")}


def counter_main(argv, train, check, told):
    """The command line of a counter: `train`, or its check with the numbers in argv; told: what it says of check's second result."""
    if argv == ["train"]:
        return train()
    shares, second, wrong = check(*map(int, argv))
    for kind, (share, n) in shares.items():
        print(f"{kind}: {100 * share:.1f} % of {n} right")
    print(told(second))
    for row in wrong:
        print(*row)
