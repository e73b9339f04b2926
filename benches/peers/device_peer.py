#!/usr/bin/env python3
"""Times of PyTorch, and of JAX where it is, for recurrences of one layer on a device: a line of JSON each.

What `retrograd device` and `retrograd bench --device cuda` measure of this engine, beside it: forward, and forward with
the gradients of everything, of T steps for N rows. PyTorch's own recurrences (cuDNN) in f32 without TF32, with TF32 and in
bf16; loops over steps as one writes them; JAX's scan. The least of the runs counts; the device is waited for.
"""

import argparse
import json
import time


def least(run, wait, seconds):
    run()
    wait()
    best, until = float("inf"), time.monotonic() + seconds
    while time.monotonic() < until:
        start = time.monotonic()
        run()
        wait()
        best = min(best, time.monotonic() - start)
    return best


def line(args, peer, cell, hidden, forward, both):
    step = [1e6 * s / args.steps for s in (forward, both)]
    print(json.dumps({"peer": peer, "cell": cell, "hidden": hidden, "steps": args.steps, "batch": args.batch,
                      "forward_us_per_step": step[0], "forward_backward_us_per_step": step[1]}), flush=True)


def torch_peer(args, cell, hidden):
    import torch

    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    one = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}[cell]
    cuda = args.device == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None

    def measure(name, dtype, make, forward):
        torch.manual_seed(0)
        model = make(hidden, hidden).to(args.device, dtype)
        x = torch.randn(args.steps, args.batch, hidden, device=args.device, dtype=dtype, requires_grad=True)

        def both():
            forward(model, x).sum().backward()
            model.zero_grad(set_to_none=True)
            x.grad = None

        def alone():
            with torch.no_grad():
                forward(model, x)

        line(args, name, cell, hidden, least(alone, wait, args.seconds), least(both, wait, args.seconds))

    def loop(model, x):
        h = x.new_zeros(args.batch, hidden)
        state = (h, h) if cell == "lstm" else h
        for x_t in x.unbind(0):
            state = model(x_t, state)
        return state[0] if cell == "lstm" else state

    own = lambda model, x: model(x)[0]  # noqa: E731
    for tf32 in [False, True] if cuda else [False]:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        measure("torch.nn tf32" if tf32 else "torch.nn f32", torch.float32, kind, own)
        if not tf32:
            measure("torch.loop f32", torch.float32, one, loop)
    if cuda:
        measure("torch.nn bf16", torch.bfloat16, kind, own)


def jax_peer(args, cell, hidden):
    import jax
    import jax.numpy as jnp

    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    w, r = (0.05 * jax.random.normal(k, (hidden, gates * hidden)) for k in keys[:2])
    x = jax.random.normal(keys[2], (args.steps, args.batch, hidden))

    def last(w, r, x):
        zero = jnp.zeros((args.batch, hidden))

        def step(state, wx):
            h, c = state
            rh = h @ r
            if cell == "rnn":
                return (jnp.tanh(wx + rh), c), None
            if cell == "gru":
                a, b = jnp.split(wx, 3, 1), jnp.split(rh, 3, 1)
                z, s = jax.nn.sigmoid(a[0] + b[0]), jax.nn.sigmoid(a[1] + b[1])
                return ((1 - z) * jnp.tanh(a[2] + s * b[2]) + z * h, c), None
            i, f, g, o = jnp.split(wx + rh, 4, 1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        return jax.lax.scan(step, (zero, zero), x @ w)[0][0].sum()

    with jax.default_matmul_precision("float32"):
        forward, both = jax.jit(last), jax.jit(jax.grad(last, (0, 1, 2)))
        times = [least(lambda: jax.block_until_ready(f(w, r, x)), lambda: None, args.seconds) for f in (forward, both)]
    line(args, "jax.scan f32", cell, hidden, *times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that this runs")
    parser.add_argument("--steps", type=int, default=784)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement")
    args = parser.parse_args()
    for hidden in args.hidden:
        for cell in ["rnn", "gru", "lstm"]:
            for peer in [torch_peer, jax_peer]:
                try:
                    peer(args, cell, hidden)
                except ImportError as error:
                    print(json.dumps({"peer": peer.__name__, "missing": str(error)}), flush=True)


main()
