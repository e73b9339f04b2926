"""JAX as a worker: `lax.scan` under `jit`, loss and gradients compiled together.

Complex numbers are pairs of real planes, which XLA fuses. `dense` forms structured recurrent matrices once a call,
`scan` applies them as they are (Kronecker products in two groups of factors). `unrolled` puts four steps into a turn of
the loop. `checkpoint` is `scan` with `jax.checkpoint` around the step.
"""

import math
import sys

import numpy
from worker import Worker

worker = Worker()  # before JAX starts its threads: they inherit that denormals are flushed
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

case = worker.case
rows, hidden = case["rows"], case["hidden"]
variant = worker.variant
UNROLL = 4 if variant == "unrolled" else 1


def zeros(*sizes):
    return jnp.zeros(sizes or (rows, hidden), jnp.float32)


def scan(step, first, inputs):
    body = lambda state, at: (step(state, at), None)  # noqa: E731
    # With a checkpoint, what is kept of a step is the state it began with.
    body = jax.checkpoint(body) if variant == "checkpoint" else body
    return lax.scan(body, first, inputs, unroll=UNROLL)[0]


def rnn(p, x):
    step = lambda h, ux: jnp.tanh(ux + h @ p["W"])  # noqa: E731
    return scan(step, zeros(), x @ p["U"] + p["b"])


def lstm(p, x):
    def step(state, ux):
        h, c = state
        i, f, g, o = jnp.split(ux + h @ p["W"], 4, 1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return scan(step, (zeros(), zeros()), x @ p["U"] + p["b"])[0]


def gru(p, x):
    def step(h, ux):
        wr, wz, wn = jnp.split(h @ p["W"], 3, 1)
        ur, uz, un = jnp.split(ux, 3, 1)
        r, z = jax.nn.sigmoid(wr + ur), jax.nn.sigmoid(wz + uz)
        n = jnp.tanh(un + r * (wn + p["d"]))
        return n + z * (h - n)

    return scan(step, zeros(), x @ p["U"] + p["b"])


def mgu(p, x):
    wf, wn = jnp.split(p["W"], 2, 1)

    def step(h, ux):
        uf, un = jnp.split(ux, 2, 1)
        f = jax.nn.sigmoid(uf + h @ wf)
        return h + f * (jax.nn.soft_sign(un + (f * h) @ wn) - h)

    return scan(step, zeros(), x @ p["U"] + p["b"])


def kron(factors):
    """Real and imaginary part of the Kronecker product of factors, given as pairs."""
    re, im = factors[0]
    for a, b in factors[1:]:
        re, im = jnp.kron(re, a) - jnp.kron(im, b), jnp.kron(re, b) + jnp.kron(im, a)
    return re, im


def kru(p, x):
    factors = [p[f"W.{f}"] for f in range(sum(name.startswith("W.") for name in p))]
    (ur, ui), b = p["U"], p["b"]

    def modrelu(re, im):
        scale = jax.nn.relu(1 + b * lax.rsqrt(re * re + im * im))
        return re * scale, im * scale

    if variant == "dense":
        re, im = kron(factors)
        w = jnp.block([[re.T, im.T], [-im.T, re.T]])

        def step(h, ux):
            z = ux + jnp.concatenate(h, 1) @ w
            return modrelu(z[:, :hidden], z[:, hidden:])
    else:
        split = len(factors) // 2
        (ar, ai), (cr, ci) = kron(factors[:split]), kron(factors[split:])
        m, q = len(ar), len(cr)
        outer = jnp.block([[ar, -ai], [ai, ar]])
        inner = jnp.concatenate([cr.T, ci.T], 1)

        def step(h, ux):
            y = jnp.stack(h, 1).reshape(rows, 2, m, q) @ inner
            y = jnp.stack([y[:, 0, :, :q] - y[:, 1, :, q:], y[:, 0, :, q:] + y[:, 1, :, :q]], 1)
            z = jnp.einsum("km,nmq->nkq", outer, y.reshape(rows, 2 * m, q)).reshape(rows, 2 * hidden) + ux
            return modrelu(z[:, :hidden], z[:, hidden:])

    h = scan(step, (zeros(), zeros()), x @ jnp.concatenate([ur, ui], 1))
    return jnp.concatenate(h, 1)


def irnn(p, x):
    def step(h, ux):
        g = h
        for k in range(len(p["eta"])):
            total = g + h
            g = g + p["eta"][k] * (jax.nn.relu(ux + total @ p["W"]) - total)
        return g

    return scan(step, zeros(), x @ p["U"] + p["b"])


def gru_lrd(p, x):
    """Reset before the product."""
    left, right, delta = (jnp.split(p[f"W.{name}"], 3, -1) for name in ("L", "R", "delta"))
    if variant == "dense":
        whole = [r @ l + jnp.diag(d) for l, r, d in zip(left, right, delta)]
        gates, proposal = jnp.concatenate(whole[:2], 1), whole[2]
    else:
        inner, both = jnp.concatenate(right[:2], 1), jax.scipy.linalg.block_diag(*left[:2])

    def step(h, ux):
        gates_x, proposal_x = ux[:, : 2 * hidden], ux[:, 2 * hidden :]
        if variant == "dense":
            r, z = jnp.split(jax.nn.sigmoid(gates_x + h @ gates), 2, 1)
            n = jnp.tanh(proposal_x + (r * h) @ proposal)
        else:
            r, z = jnp.split(gates_x + (h @ inner) @ both, 2, 1)
            r, z = jax.nn.sigmoid(r + delta[0] * h), jax.nn.sigmoid(z + delta[1] * h)
            rh = r * h
            n = jnp.tanh(proposal_x + (rh @ right[2]) @ left[2] + delta[2] * rh)
        return n + z * (h - n)

    return scan(step, zeros(), x @ p["U"] + p["b"])


def nru(p, x):
    k, m = (int(case["cell_settings"][key]) for key in ("heads", "memory"))
    s = math.isqrt(k * m)
    whole = jnp.concatenate([p["W"], p["W_m"]])
    share = jnp.repeat(jnp.array([1 / k, -1 / k]), k)

    def step(state, ux):
        h, memory = state
        h = jax.nn.relu(ux + jnp.concatenate([h, memory], 1) @ whole)
        heads = jnp.concatenate([h, memory], 1) @ p["A"] + p["a"]
        strength, u, r = heads[:, : 2 * k], heads[:, 2 * k : 2 * k + 2 * s], heads[:, 2 * k + 2 * s :]
        v = (u.reshape(rows, 2, s, 1) * r.reshape(rows, 2, 1, s)).reshape(rows, 2 * k, m)
        square = v * v
        norm = jnp.maximum((square * square * jnp.abs(v)).sum(2) ** 0.2, 1e-12)
        return h, memory + ((strength * share / norm)[:, :, None] * v).sum(1)

    return scan(step, (zeros(), zeros(rows, m)), x @ p["U"] + p["b"])[0]


CELLS = {("rnn", "dense"): rnn, ("lstm", "dense"): lstm, ("gru", "dense"): gru, ("mgu", "dense"): mgu}
CELLS |= {("irnn", "dense"): irnn, ("nru", "dense"): nru}
FORMED = {("kru", "kron"): kru, ("gru", "lrd"): gru_lrd}  # those whose matrices can be formed once a call


def main():
    version = f"jax {jax.__version__}"
    name = case["cell"], case["operator"]
    cell = (FORMED if variant == "dense" else CELLS | FORMED).get(name)
    if cell is None:
        return worker.skip(version, f"no {worker.variant} of {case['cell']} on {case['operator']}")

    def planes(w):
        return (jnp.asarray(w.real), jnp.asarray(w.imag)) if numpy.iscomplexobj(w) else jnp.asarray(w)

    params = {name: planes(w) for name, w in worker.weights.items()}
    x, target = jnp.asarray(worker.batch["x"]), jnp.asarray(worker.batch["target"])

    def loss(params, x, target):
        local = {name.removeprefix("layer0."): w for name, w in params.items()}
        y = cell(local, x) @ local["readout.V"] + local["readout.c"]
        return -jnp.take_along_axis(jax.nn.log_softmax(y), target[:, None], 1).mean()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, x, target).compile()
    run = lambda: jax.block_until_ready(compiled(params, x, target))  # noqa: E731

    def gradients(grads):
        joined = {name: g if not isinstance(g, tuple) else g[0] + 1j * g[1] for name, g in grads.items()}
        return {name: numpy.asarray(g) for name, g in joined.items()}

    flushed = jax.jit(lambda a: (a * 1e-10).max())(jnp.full(1 << 20, 1e-30, jnp.float32)) == 0
    worker.finish(version, run, gradients, flushed)


if __name__ == "__main__":
    sys.exit(main())
