// KRU whose factors are all 2x2, complex or real, H = 2^m, m = 7..11: the whole sequence in one launch, forward or
// backward. A block of H/8 threads takes one row of the batch through time. A thread holds 8 elements in registers and
// applies three factors to them without asking anybody; then the block exchanges elements through shared memory, and
// the next three factors are at hand. S = ceil(m/3) rounds make a product.
//
// Parameters, lengths and outputs as in kru.cu, without `sizes`; `factors` [m,2,2], the first one that of the highest
// bit of an element's number. Launch: grid (N), block (H/8). Dynamic shared memory:
//   forward  2·(H + H/8) V and 4·m V;   backward  the same, S·H V, and 12·S V for each warp.
#include "activation.cuh"

template <class V>
__device__ __forceinline__ V *shared() {
    extern __shared__ __align__(16) unsigned char bytes[];
    return (V *)bytes;
}

// Number of the element that this thread holds in register r while the bits lo, lo+1, lo+2 of the number are r.
__device__ __forceinline__ int element(int lo, int r) {
    int t = threadIdx.x;
    return (t & ((1 << lo) - 1)) | (r << lo) | (t >> lo << (lo + 3));
}

// Place of an element in an exchange buffer: one place in nine is left empty against bank conflicts.
__device__ __forceinline__ int place(int e) { return e + (e >> 3); }

// Hands the registers from the layout `from` to the layout `to`. Two buffers take turns, so one barrier is enough:
// whoever writes a buffer again has passed the barrier after which the other one was read.
template <class V>
__device__ __forceinline__ void exchange(V (&x)[8], int from, int to, V *&buffer, V *&other) {
#pragma unroll
    for (int r = 0; r < 8; r++) buffer[place(element(from, r))] = x[r];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 8; r++) x[r] = buffer[place(element(to, r))];
    V *swap = buffer;
    buffer = other;
    other = swap;
}

// A factor on register bit R.
template <class V, int R>
__device__ __forceinline__ void butterfly(V (&x)[8], const V *w) {
    V w00 = w[0], w01 = w[1], w10 = w[2], w11 = w[3];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i >> R & 1) continue;
        V a = x[i], c = x[i | 1 << R];
        x[i] = mul_add(w01, c, mul_add(w00, a, zero(V())));
        x[i | 1 << R] = mul_add(w11, c, mul_add(w10, a, zero(V())));
    }
}

// The adjoint of a factor on register bit R: y becomes Wᴴ y, and `bar` gets y xᴴ.
template <class V, int R>
__device__ __forceinline__ void butterfly_adjoint(V (&y)[8], const V (&x)[8], const V *w, V (&bar)[4]) {
    V w00 = w[0], w01 = w[1], w10 = w[2], w11 = w[3];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i >> R & 1) continue;
        V a = y[i], c = y[i | 1 << R], p = x[i], q = x[i | 1 << R];
        bar[0] = conj_mul_add(p, a, bar[0]);
        bar[1] = conj_mul_add(q, a, bar[1]);
        bar[2] = conj_mul_add(p, c, bar[2]);
        bar[3] = conj_mul_add(q, c, bar[3]);
        y[i] = conj_mul_add(w10, c, conj_mul_add(w00, a, zero(V())));
        y[i | 1 << R] = conj_mul_add(w11, c, conj_mul_add(w01, a, zero(V())));
    }
}

// The rounds of a product: round s holds the bits lo, lo+1, lo+2 in registers and applies the factors of those that
// are at least 3·s; only the last round skips some.
__device__ __forceinline__ int low_bit(int s, int m) { return min(3 * s, m - 3); }

template <class V>
__device__ __forceinline__ const V *factor(const V *w, int m, int bit) {
    return w + 4 * (m - 1 - bit);
}

// Factors of round s; `until`: only those of register bits below it.
template <class V>
__device__ __forceinline__ void round_(V (&x)[8], const V *w, int s, int m, int until) {
    int lo = low_bit(s, m), skip = 3 * s - lo;
    if (skip <= 0 && until > 0) butterfly<V, 0>(x, factor(w, m, lo));
    if (skip <= 1 && until > 1) butterfly<V, 1>(x, factor(w, m, lo + 1));
    if (until > 2) butterfly<V, 2>(x, factor(w, m, lo + 2));
}

template <class V, int S>
__device__ void chain_forward(const V *factors, int m, const V *ux, const float *b, const V *h0, const int *lengths,
                              V *h, V *last, i64 T, i64 N, int form) {
    int H = 1 << m, top = m - 3;
    V *buffer = shared<V>(), *other = buffer + H + H / 8, *w = other + H + H / 8;
    for (int i = threadIdx.x; i < 4 * m; i += blockDim.x) w[i] = factors[i];
    __syncthreads();
    i64 row = (i64)blockIdx.x * H, step = N * H;
    int steps = lengths ? min(max(lengths[blockIdx.x], 0), (int)T) : (int)T;
    V x[8];
    float bias[8];
#pragma unroll
    for (int r = 0; r < 8; r++) {
        int e = element(top, r);
        x[r] = h0 ? h0[row + e] : zero(V());
        bias[r] = b ? b[e] : 0.0f;
    }
    for (i64 t = 0; t < steps; t++) {
        i64 at = t * step + row;
        V u[8];
#pragma unroll
        for (int r = 0; r < 8; r++) u[r] = ux[at + element(top, r)];
#pragma unroll
        for (int s = 0; s < S; s++) {
            exchange(x, low_bit(s ? s - 1 : S - 1, m), low_bit(s, m), buffer, other);
            round_(x, w, s, m, 3);
        }
#pragma unroll
        for (int r = 0; r < 8; r++) {
            x[r] = activate(add(x[r], u[r]), bias[r], form);
            h[at + element(top, r)] = x[r];
        }
    }
#pragma unroll
    for (int r = 0; r < 8; r++) last[row + element(top, r)] = x[r];
    for (i64 t = steps; t < T; t++)
        for (int e = threadIdx.x; e < H; e += blockDim.x) h[t * step + row + e] = zero(V());
}

__device__ __forceinline__ float down(float v, int by) { return __shfl_down_sync(0xffffffffu, v, by); }
__device__ __forceinline__ float2 down(float2 v, int by) { return make_float2(down(v.x, by), down(v.y, by)); }

template <class V, int S>
__device__ void chain_backward(const V *factors, int m, const V *ux, const float *b, const V *h0, const int *lengths,
                               const V *h, const V *h_bar, const V *last_bar, V *ux_bar, V *h0_bar, V *factor_bars,
                               float *b_bars, i64 T, i64 N, int form) {
    int H = 1 << m, top = m - 3, threads = H / 8;
    V *buffer = shared<V>(), *other = buffer + H + H / 8, *w = other + H + H / 8;
    V *inputs = w + 4 * m, *sums = inputs + S * H;
    for (int i = threadIdx.x; i < 4 * m; i += blockDim.x) w[i] = factors[i];
    __syncthreads();
    i64 row = (i64)blockIdx.x * H, step = N * H;
    int steps = lengths ? min(max(lengths[blockIdx.x], 0), (int)T) : (int)T;
    V y[8], bar[S][3][4];
    float bias[8], b_sum[8];
#pragma unroll
    for (int r = 0; r < 8; r++) {
        int e = element(top, r);
        y[r] = last_bar ? last_bar[row + e] : zero(V());
        bias[r] = b ? b[e] : 0.0f;
        b_sum[r] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 12 * S; i++) bar[i / 12][i / 4 % 3][i % 4] = zero(V());
    for (i64 t = steps; t < T; t++)
        for (int e = threadIdx.x; e < H; e += blockDim.x) ux_bar[t * step + row + e] = zero(V());
    for (i64 t = steps - 1; t >= 0; t--) {
        i64 at = t * step + row;
        V x[8], z[8];
#pragma unroll
        for (int r = 0; r < 8; r++) {
            int e = element(top, r);
            x[r] = t > 0 ? h[at - step + e] : h0 ? h0[row + e] : zero(V());
            z[r] = ux[at + e];
            if (h_bar) y[r] = add(y[r], h_bar[at + e]);
        }
        // The inner products once more. What each round begins with stays in `inputs`, each thread's own.
#pragma unroll
        for (int s = 0; s < S; s++) {
            exchange(x, low_bit(s ? s - 1 : S - 1, m), low_bit(s, m), buffer, other);
#pragma unroll
            for (int r = 0; r < 8; r++) inputs[(s * 8 + r) * threads + threadIdx.x] = x[r];
            round_(x, w, s, m, 3);
        }
#pragma unroll
        for (int r = 0; r < 8; r++) {
            float b_bar;
            y[r] = activate_adjoint(add(x[r], z[r]), bias[r], form, y[r], b_bar);
            ux_bar[at + element(top, r)] = y[r];
            b_sum[r] += b_bar;
        }
#pragma unroll
        for (int s = S - 1; s >= 0; s--) {
            int lo = low_bit(s, m), skip = 3 * s - lo;
            V first[8];
#pragma unroll
            for (int r = 0; r < 8; r++) x[r] = first[r] = inputs[(s * 8 + r) * threads + threadIdx.x];
            round_(x, w, s, m, 2);
            butterfly_adjoint<V, 2>(y, x, factor(w, m, lo + 2), bar[s][2]);
            if (skip <= 1) {
#pragma unroll
                for (int r = 0; r < 8; r++) x[r] = first[r];
                round_(x, w, s, m, 1);
                butterfly_adjoint<V, 1>(y, x, factor(w, m, lo + 1), bar[s][1]);
            }
            if (skip <= 0) butterfly_adjoint<V, 0>(y, first, factor(w, m, lo), bar[s][0]);
            exchange(y, lo, low_bit(s ? s - 1 : S - 1, m), buffer, other);
        }
    }
#pragma unroll
    for (int r = 0; r < 8; r++) {
        int e = element(top, r);
        h0_bar[row + e] = y[r];
        if (b_bars) b_bars[row + e] = b_sum[r];
    }
    // The sums of the threads, in an order that is always the same: within a warp by halves, then warp by warp.
    int width = min(threads, 32);
#pragma unroll
    for (int i = 0; i < 12 * S; i++) {
        V v = bar[i / 12][i / 4 % 3][i % 4];
        for (int by = width / 2; by > 0; by /= 2) {
            V from = down(v, by);
            if ((threadIdx.x & 31) < by) v = add(v, from);
        }
        if (threadIdx.x % 32 == 0) sums[(threadIdx.x / 32) * 12 * S + i] = v;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 4 * m; i += blockDim.x) {
        int bit = m - 1 - i / 4, s = bit / 3, r = bit - low_bit(s, m), at_ = s * 12 + r * 4 + i % 4;
        V sum = sums[at_];
        for (int k = 1; k < (threads + 31) / 32; k++) sum = add(sum, sums[k * 12 * S + at_]);
        factor_bars[(i64)blockIdx.x * 4 * m + i] = sum;
    }
}

#define CHAIN(NAME, V, S, THREADS)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        kru_chain_forward_##NAME##_##S(const V *factors, int m, const V *ux, const float *b, const V *h0,             \
                                       const int *lengths, V *h, V *last, i64 T, i64 N, int form) {                   \
        chain_forward<V, S>(factors, m, ux, b, h0, lengths, h, last, T, N, form);                                     \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        kru_chain_backward_##NAME##_##S(const V *factors, int m, const V *ux, const float *b, const V *h0,            \
                                        const int *lengths, const V *h, const V *h_bar, const V *last_bar, V *ux_bar, \
                                        V *h0_bar, V *factor_bars, float *b_bars, i64 T, i64 N, int form) {           \
        chain_backward<V, S>(factors, m, ux, b, h0, lengths, h, h_bar, last_bar, ux_bar, h0_bar, factor_bars, b_bars, \
                             T, N, form);                                                                             \
    }

CHAIN(real, float, 3, 64)
CHAIN(real, float, 4, 256)
CHAIN(complex, float2, 3, 64)
CHAIN(complex, float2, 4, 256)
