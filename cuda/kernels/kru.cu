// KRU, any factors: the whole sequence in one launch, forward or backward. A block takes one row of the batch through
// time; its state stays in shared memory. Chains of 2x2 factors have kernels of their own in kru_chain.cu.
//
//   z_t = (W_0 ⊗ … ⊗ W_{F-1}) h_{t-1} + ux_t,   h_t = act(z_t; b)
//
// V is float or float2. Launch: grid (N), block (threads, a multiple of 32, at most 256); T may be 0.
//
//   factors [Σ P_f²] V   the factors one after the other, row by row                     in
//   sizes   [F] int      P_f; their product is H                                         in
//   ux      [T,N,H] V    input side of every step                                        in
//   b       [H] float    bias of the modulus; null for real activations                  in, may be null
//   h0      [N,H] V      first state; null: zeros                                        in, may be null
//   lengths [N] int      steps of a row, cut to 0..T; null: T                            in, may be null
//   h       [T,N,H] V    states; 0 from the end of a row's sequence on                   forward: out; backward: in
//   last    [N,H] V      state at the end of each row's sequence                         out
//   h_bar   [T,N,H] V    cotangents of h; null: zeros                                    in, may be null
//   last_bar [N,H] V     cotangent of last; null: zeros                                  in, may be null
//   ux_bar  [T,N,H] V                                                                    out
//   h0_bar  [N,H] V                                                                      out
//   factor_bars [N, Σ P_f²] V  for each row; sum_rows adds them up                       out
//   b_bars  [N,H] float  for each row                                                    out, may be null
//
// Nothing may alias. Dynamic shared memory: forward 2·H V; backward (F+2)·H V, F·threads V, H float.
#include "activation.cuh"

template <class V>
__device__ __forceinline__ V *shared() {
    extern __shared__ __align__(16) unsigned char bytes[];
    return (V *)bytes;
}

// y = (I ⊗ W ⊗ I) x for one factor of size p with `inner` elements inside; adjoint: Wᴴ.
template <class V>
__device__ void stage(const V *w, int p, int inner, int H, const V *x, V *y, bool adjoint) {
    for (int e = threadIdx.x; e < H; e += blockDim.x) {
        int i = e / inner % p, base = e - i * inner;
        V sum = zero(V());
        for (int j = 0; j < p; j++) {
            V xj = x[base + j * inner];
            sum = adjoint ? conj_mul_add(w[j * p + i], xj, sum) : mul_add(w[i * p + j], xj, sum);
        }
        y[e] = sum;
    }
}

__device__ __forceinline__ int steps_of_row(const int *lengths, i64 T) {
    return lengths ? min(max(lengths[blockIdx.x], 0), (int)T) : (int)T;
}

template <class V>
__device__ void kru_forward(const V *factors, const int *sizes, int F, const V *ux, const float *b, const V *h0,
                            const int *lengths, V *h, V *last, i64 T, i64 N, int H, int form) {
    V *x = shared<V>(), *y = x + H;
    i64 row = (i64)blockIdx.x * H, step = N * H;
    int steps = steps_of_row(lengths, T);
    for (int e = threadIdx.x; e < H; e += blockDim.x) x[e] = h0 ? h0[row + e] : zero(V());
    for (i64 t = 0; t < steps; t++) {
        const V *w = factors;
        int inner = H;
        for (int f = 0; f < F; f++) {
            int p = sizes[f];
            inner /= p;
            __syncthreads();
            stage(w, p, inner, H, x, y, false);
            w += p * p;
            V *swap = x;
            x = y;
            y = swap;
        }
        // Each element is its thread's own from here to the next stage.
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            i64 at = t * step + row + e;
            x[e] = activate(add(x[e], ux[at]), b ? b[e] : 0.0f, form);
            h[at] = x[e];
        }
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) {
        last[row + e] = x[e];
        for (i64 t = steps; t < T; t++) h[t * step + row + e] = zero(V());
    }
}

// Adds Σ_{o,k} y[o,i,k] conj(x[o,j,k]) for every i, j. Where a factor has at most as many entries as the block has
// threads, several threads share an entry, each with a slice of the sum of its own in `slices`; larger factors are
// summed in `bar`, an entry always by the same thread.
template <class V>
__device__ void factor_adjoint(int p, int inner, int H, const V *x, const V *y, V *slices, V *bar) {
    int entries = p * p, fibers = H / p, shares = blockDim.x / entries;
    int first = shares ? threadIdx.x % entries : threadIdx.x;
    int share = shares ? threadIdx.x / entries : 0;
    if (shares && share >= shares) return;
    for (int entry = first; entry < entries; entry += blockDim.x) {
        int i = entry / p, j = entry % p;
        V sum = shares ? slices[threadIdx.x] : bar[entry];
        for (int fiber = share; fiber < fibers; fiber += shares ? shares : 1) {
            int base = fiber / inner * p * inner + fiber % inner;
            sum = conj_mul_add(x[base + j * inner], y[base + i * inner], sum);
        }
        if (shares) {
            slices[threadIdx.x] = sum;
            return;
        }
        bar[entry] = sum;
    }
}

template <class V>
__device__ void kru_backward(const V *factors, const int *sizes, int F, const V *ux, const float *b, const V *h0,
                             const int *lengths, const V *h, const V *h_bar, const V *last_bar, V *ux_bar, V *h0_bar,
                             V *factor_bars, float *b_bars, i64 T, i64 N, int H, int form) {
    // x_0 … x_F, then one more; the slices of F factors; the cotangent of b.
    V *x = shared<V>(), *spare = x + (F + 1) * H, *slices = spare + H;
    float *b_sum = (float *)(slices + F * blockDim.x);
    i64 row = (i64)blockIdx.x * H, step = N * H;
    int steps = steps_of_row(lengths, T), entries = 0;
    for (int f = 0; f < F; f++) entries += sizes[f] * sizes[f];
    V *bars = factor_bars + (i64)blockIdx.x * entries;
    for (int f = 0; f < F; f++) slices[f * blockDim.x + threadIdx.x] = zero(V());
    for (int e = threadIdx.x; e < entries; e += blockDim.x) bars[e] = zero(V());
    __syncthreads();
    // The cotangent of the state lies in `carry` between steps, each element its thread's own.
    V *carry = spare;
    for (int e = threadIdx.x; e < H; e += blockDim.x) {
        b_sum[e] = 0.0f;
        carry[e] = last_bar ? last_bar[row + e] : zero(V());
    }
    for (i64 t = steps; t < T; t++)
        for (int e = threadIdx.x; e < H; e += blockDim.x) ux_bar[t * step + row + e] = zero(V());
    for (i64 t = steps - 1; t >= 0; t--) {
        // The inner products once more: x_f is what factor f was applied to.
        for (int e = threadIdx.x; e < H; e += blockDim.x)
            x[e] = t > 0 ? h[(t - 1) * step + row + e] : h0 ? h0[row + e] : zero(V());
        const V *w = factors;
        int inner = H;
        for (int f = 0; f < F; f++) {
            int p = sizes[f];
            inner /= p;
            __syncthreads();
            stage(w, p, inner, H, x + f * H, x + (f + 1) * H, false);
            w += p * p;
        }
        V *y = x + F * H;
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            i64 at = t * step + row + e;
            V g = h_bar ? add(carry[e], h_bar[at]) : carry[e];
            float b_bar;
            V z_bar = activate_adjoint(add(y[e], ux[at]), b ? b[e] : 0.0f, form, g, b_bar);
            ux_bar[at] = z_bar;
            y[e] = z_bar;
            b_sum[e] += b_bar;
        }
        V *out = carry, *bar = bars + entries;
        for (int f = F - 1; f >= 0; f--) {
            int p = sizes[f];
            w -= p * p;
            bar -= p * p;
            __syncthreads();
            factor_adjoint(p, inner, H, x + f * H, y, slices + f * blockDim.x, bar);
            stage(w, p, inner, H, y, out, true);
            inner *= p;
            V *used = y;
            y = out;
            out = used;
        }
        // The buffers of y alternate between the spare one and that of x_F, which the next step needs for itself.
        if (y != spare) {
            __syncthreads();
            for (int e = threadIdx.x; e < H; e += blockDim.x) spare[e] = y[e];
        }
        carry = spare;
        __syncthreads();
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) {
        h0_bar[row + e] = carry[e];
        if (b_bars) b_bars[row + e] = b_sum[e];
    }
    __syncthreads();
    for (int f = 0; f < F; f++) {
        int size = sizes[f] * sizes[f], shares = blockDim.x / size;
        if (shares && threadIdx.x < size) {
            V sum = slices[f * blockDim.x + threadIdx.x];
            for (int k = 1; k < shares; k++) sum = add(sum, slices[f * blockDim.x + k * size + threadIdx.x]);
            bars[threadIdx.x] = sum;
        }
        bars += size;
    }
}

#define KRU(NAME, V)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        kru_forward_##NAME(const V *factors, const int *sizes, int F, const V *ux, const float *b, const V *h0,       \
                           const int *lengths, V *h, V *last, i64 T, i64 N, int H, int form) {                                 \
        kru_forward(factors, sizes, F, ux, b, h0, lengths, h, last, T, N, H, form);                                         \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        kru_backward_##NAME(const V *factors, const int *sizes, int F, const V *ux, const float *b, const V *h0,      \
                            const int *lengths, const V *h, const V *h_bar, const V *last_bar, V *ux_bar, V *h0_bar,  \
                            V *factor_bars, float *b_bars, i64 T, i64 N, int H, int form) {                           \
        kru_backward(factors, sizes, F, ux, b, h0, lengths, h, h_bar, last_bar, ux_bar, h0_bar, factor_bars, b_bars,  \
                     T, N, H, form);                                                                                  \
    }

KRU(real, float)
KRU(complex, float2)
