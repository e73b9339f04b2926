"""PyTorch as a worker: `nn` is its own recurrence, the other formulations are loops over steps.

Loops read the input's share through `unbind`, whose gradient is linear in the number of steps (that of an index is
quadratic). Products that several gates share are one product. `dense` forms structured recurrent matrices once a call,
`eager` applies them as they are (Kronecker products in two groups of factors). `compile` is `eager` with its step
through `torch.compile`, `checkpoint` is `eager` with √T segments, each recorded when it is differentiated.
"""

import math
import sys

from worker import Worker

worker = Worker()  # before PyTorch starts its threads: they inherit that denormals are flushed
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

case, weights = worker.case, {name: torch.from_numpy(w) for name, w in worker.weights.items()}
rows, hidden = case["rows"], case["hidden"]
leaves, names = [], []
compiled = torch.compile if worker.variant == "compile" else lambda step: step


def leaf(name, value=None, back=lambda grad: grad):
    """The parameter `name` as a leaf; `back` turns the leaf's gradient into the parameter's. No name: not one."""
    value = (weights[name] if value is None else value).contiguous().clone().requires_grad_()
    leaves.append(value)
    names.append((name, back))
    return value


def layer(name):
    return leaf(f"layer0.{name}")


def zeros(width=None, dtype=torch.float32):
    return torch.zeros(rows, width or hidden, dtype=dtype)


def scan(step, first, inputs):
    """The last state. `inputs`: sequences `[T,N,..]`, cut into steps."""
    if worker.variant == "checkpoint":
        return segments(step, first, inputs)
    step, state = compiled(step), first
    for at in zip(*(sequence.unbind(0) for sequence in inputs)):
        state = step(state, *at)
    return state


def segments(step, first, inputs):
    """The same, of √T segments of √T steps, each recorded only while it is differentiated."""

    def segment(state, *parts):
        for at in zip(*(part.unbind(0) for part in parts)):
            state = step(state, *at)
        return state

    state, length = first, math.isqrt(case["steps"] - 1) + 1
    for parts in zip(*(sequence.split(length) for sequence in inputs)):
        state = checkpoint(segment, state, *parts, use_reentrant=False)
    return state


def own():
    """torch.nn's RNN, LSTM and GRU."""
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case["cell"]]
    module = kind(case["input"], hidden)
    module.weight_ih_l0 = torch.nn.Parameter(weights["layer0.U"].T.contiguous())
    module.weight_hh_l0 = torch.nn.Parameter(weights["layer0.W"].T.contiguous())
    module.bias_ih_l0 = torch.nn.Parameter(weights["layer0.b"].clone())
    second = torch.zeros_like(weights["layer0.b"])
    if "layer0.d" in weights:
        second[2 * hidden :] = weights["layer0.d"]
    module.bias_hh_l0 = torch.nn.Parameter(second)
    leaves.extend([module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0, module.bias_hh_l0])
    names.extend((name, lambda grad: grad.T) for name in ("layer0.U", "layer0.W"))
    names.append(("layer0.b", lambda grad: grad))
    names.append(("layer0.d" if "layer0.d" in weights else None, lambda grad: grad[2 * hidden :]))

    def features(x):
        last = module(x)[1]
        return (last[0] if case["cell"] == "lstm" else last)[0]

    return features


def rnn():
    u, w, b = layer("U"), layer("W"), layer("b")
    step = lambda h, ux: torch.tanh(torch.addmm(ux, h, w))  # noqa: E731
    return lambda x: scan(step, zeros(), [x @ u + b])


def lstm():
    u, w, b = layer("U"), layer("W"), layer("b")

    def step(state, ux):
        h, c = state
        i, f, g, o = torch.addmm(ux, h, w).chunk(4, 1)
        c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
        return torch.sigmoid(o) * torch.tanh(c), c

    return lambda x: scan(step, (zeros(), zeros()), [x @ u + b])[0]


def gru():
    u, w, b, d = layer("U"), layer("W"), layer("b"), layer("d")

    def features(x):
        bias = torch.cat([torch.zeros(2 * hidden), d])

        def step(h, ux):
            wr, wz, wn = torch.addmm(bias, h, w).chunk(3, 1)
            ur, uz, un = ux.chunk(3, 1)
            r, z = torch.sigmoid(wr + ur), torch.sigmoid(wz + uz)
            return torch.lerp(torch.tanh(torch.addcmul(un, r, wn)), h, z)

        return scan(step, zeros(), [x @ u + b])

    return features


def mgu():
    u, w, b = layer("U"), layer("W"), layer("b")

    def features(x):
        wf, wn = w.chunk(2, 1)

        def step(h, uf, un):
            f = torch.sigmoid(torch.addmm(uf, h, wf))
            return torch.lerp(h, functional.softsign(torch.addmm(un, f * h, wn)), f)

        return scan(step, zeros(), (x @ u + b).chunk(2, 2))

    return features


def kru(formed):
    """The Kronecker product formed once a call: all of it, or one half of the factors and the other."""
    u = layer("U")
    factors = [layer(f"W.{f}") for f in range(sum(name.startswith("layer0.W.") for name in weights))]
    b, one = layer("b"), torch.ones(1)

    def product(factors):
        result = factors[0]
        for factor in factors[1:]:
            result = torch.kron(result, factor)
        return result

    def modrelu(z):
        parts = torch.view_as_real(z)
        squared = (parts * parts).sum(-1)
        scale = torch.relu(torch.addcmul(one, b, torch.rsqrt(squared)))
        return torch.view_as_complex(parts * scale.unsqueeze(-1))

    def features(x):
        split = 0 if formed else len(factors) // 2
        inner = product(factors[split:]).T
        if split > 0:
            outer = product(factors[:split])
            p, q = len(outer), len(inner)

            def step(h, ux):
                y = torch.matmul(outer, (h.reshape(rows * p, q) @ inner).reshape(rows, p, q))
                return modrelu(y.reshape(rows, hidden) + ux)
        else:

            def step(h, ux):
                return modrelu(torch.addmm(ux, h, inner))

        h = scan(step, zeros(dtype=torch.complex64), [x.to(torch.complex64) @ u])
        return torch.cat([h.real, h.imag], 1)

    return features


def irnn():
    u, w, b, eta = layer("U"), layer("W"), layer("b"), layer("eta")

    def features(x):
        etas = eta.unbind(0)

        def step(h, ux):
            g = h
            for rate in etas:
                total = g + h
                g = torch.addcmul(g, rate, torch.relu(torch.addmm(ux, total, w)) - total)
            return g

        return scan(step, zeros(), [x @ u + b])

    return features


def gru_lrd(formed):
    """Reset before the product. `formed`: the recurrent matrices are formed once a call."""
    u, b = layer("U"), layer("b")
    left, right, delta = layer("W.L"), layer("W.R"), layer("W.delta")

    def features(x):
        lr, lz, ln = left.chunk(3, 1)
        rr, rz, rn = right.chunk(3, 1)
        if formed:
            dr, dz, dn = delta.chunk(3)
            gates = torch.cat([torch.addmm(torch.diag(dr), rr, lr), torch.addmm(torch.diag(dz), rz, lz)], 1)
            proposal = torch.addmm(torch.diag(dn), rn, ln)

            def step(h, gates_x, proposal_x):
                r, z = torch.sigmoid(torch.addmm(gates_x, h, gates)).chunk(2, 1)
                return torch.lerp(torch.tanh(torch.addmm(proposal_x, r * h, proposal)), h, z)
        else:
            both, inner = torch.block_diag(lr, lz), torch.cat([rr, rz], 1)
            d, dn = delta[: 2 * hidden].reshape(2, hidden), delta[2 * hidden :]

            def step(h, gates_x, proposal_x):
                gates = torch.addmm(gates_x, h @ inner, both).reshape(rows, 2, hidden)
                r, z = torch.sigmoid(torch.addcmul(gates, d, h.unsqueeze(1))).unbind(1)
                rh = r * h
                n = torch.tanh(torch.addcmul(torch.addmm(proposal_x, rh @ rn, ln), dn, rh))
                return torch.lerp(n, h, z)

        return scan(step, zeros(), (x @ u + b).split([2 * hidden, hidden], 2))

    return features


def nru():
    """The 5-norm by products; PyTorch's own goes through powers and is slower."""
    k, m = (int(case["cell_settings"][key]) for key in ("heads", "memory"))
    s = math.isqrt(k * m)
    u, w, wm, b = layer("U"), layer("W"), layer("W_m"), layer("b")
    a, ab = layer("A"), layer("a")

    def features(x):
        whole = torch.cat([w, wm])
        share = torch.full((2 * k,), 1 / k)
        share[k:] *= -1

        def step(state, ux):
            h, memory = state
            h = torch.relu(torch.addmm(ux, torch.cat([h, memory], 1), whole))
            heads = torch.addmm(ab, torch.cat([h, memory], 1), a)
            strength, p, r = heads.split([2 * k, 2 * s, 2 * s], 1)
            v = (p.reshape(rows, 2, s, 1) * r.reshape(rows, 2, 1, s)).reshape(rows, 2 * k, m)
            square = v * v
            norm = (square * square * v.abs()).sum(2).pow(0.2).clamp_min(1e-12)
            strength = strength * share / norm
            return h, memory + torch.bmm(strength.unsqueeze(1), v).squeeze(1)

        return scan(step, (zeros(), zeros(m)), [x @ u + b])[0]

    return features


LOOPS = {("rnn", "dense"): rnn, ("lstm", "dense"): lstm, ("gru", "dense"): gru, ("mgu", "dense"): mgu}
LOOPS |= {("irnn", "dense"): irnn, ("nru", "dense"): nru}
FORMED = {("kru", "kron"): kru, ("gru", "lrd"): gru_lrd}  # those whose matrices can be formed once a call


def build():
    """The last features as a function of the input, or None if there is no such formulation."""
    cell, variant = (case["cell"], case["operator"]), worker.variant
    if variant == "nn":
        return own() if cell in (("rnn", "dense"), ("lstm", "dense"), ("gru", "dense")) else None
    if cell in FORMED:
        return FORMED[cell](variant == "dense") if variant in ("dense", "eager", "compile", "checkpoint") else None
    return LOOPS[cell]() if cell in LOOPS and variant in ("eager", "compile", "checkpoint") else None


def main():
    version = f"torch {torch.__version__}"
    torch.set_num_threads(worker.request["threads"])
    torch.set_flush_denormal(True)
    features = build()
    if features is None:
        return worker.skip(version, f"no {worker.variant} of {case['cell']} on {case['operator']}")
    v, c = leaf("readout.V"), leaf("readout.c")
    x, target = torch.from_numpy(worker.batch["x"]), torch.from_numpy(worker.batch["target"]).long()

    def run():
        loss = functional.cross_entropy(torch.addmm(c, features(x), v), target)
        grads = torch.autograd.grad(loss, leaves)
        return loss.item(), grads

    def gradients(grads):
        named = zip(names, grads)
        return {name: back(grad).resolve_conj().contiguous().numpy() for (name, back), grad in named if name}

    flushed = (torch.full((1 << 20,), 1e-30) * 1e-10).max().item() == 0
    worker.finish(version, run, gradients, flushed)


if __name__ == "__main__":
    sys.exit(main())
