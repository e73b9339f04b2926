// iRNN: the whole sequence with its inner steps in one launch, forward or backward, laid out as rnn.cu is.
//
//   g_0 = h_{t-1}, or 0;   g_k = g_{k-1} + η_{t,k} (φ(z_k) - α s_k);   s_k = g_{k-1} + h_{t-1};   h_t = g_K
//   full matrix: z_k = s_k W + ux_t;      thin: z_k = s_k + (s_k A) B + ux_t
//
//   w       [H,H], or A [H,D] and then B [D,H]                                           in
//   eta     [rows of eta, K]   step sizes; steps beyond the last row take that           in
//   ux      [T,N,H]      input side of every step, bias included                         in
//   h0      [N,H]        first state; null: zeros                                        in, may be null
//   lengths [N] int      steps of a row, cut to 0..T; null: T                            in, may be null
//   h       [T,N,H]      states; 0 from the end of a row's sequence on                   forward: out; backward: in
//   last    [N,H]        state at the end of each row's sequence                         out
//   h_bar, last_bar      cotangents of h and last; null: zeros                           in, may be null
//   ux_bar  [T,N,H]                                                                      out
//   s       [T,K,N,H]    s_k, one side of the products that the gradient of w is         out
//   z_bar   [T,K,N,H]    cotangent of z_k, the other side                                out
//   eta_bars [N,T,K]     of each row and step: the sums are left                         out
//   h0_bar  [N,H]                                                                        out
//
// `form`: TANH, RELU, or SIGMOID here. `from_zero`: g_0 = 0. Nothing may alias. Dynamic shared memory, in floats:
// forward 3·H + max(threads, H), and for a thin matrix D + max(threads, D); backward (K+4)·H + 32 + 2·max(threads, H),
// and the same for a thin matrix; and H·(H+1), or H·(D+1) + D·(H+1), for the matrix.
#include "product.cuh"

enum { SIGMOID = 20 };

__device__ __forceinline__ float phi(float z, int form) {
    if (form == SIGMOID) return sigmoid(z);
    return activate(z, 0.0f, form);
}

__device__ __forceinline__ float phi_slope(float z, float y, int form) {
    if (form == SIGMOID) return y * (1.0f - y);
    if (form == TANH) return fmaf(-y, y, 1.0f);
    return z > 0.0f ? 1.0f : 0.0f;
}

// The matrix, and how it is applied.
struct Operator {
    const float *w, *b;
    int ld, ld_b, H, D;
    float *thin, *thin_parts;

    template <bool SHARED>
    __device__ void place(const float *from, int H_, int D_, float *&room) {
        H = H_;
        D = D_;
        thin = thin_parts = nullptr;
        if (D) {
            thin = room;
            thin_parts = thin + D;
            room = thin_parts + max((int)blockDim.x, D);
        }
        w = place_matrix<SHARED>(from, H, D ? D : H, room, ld);
        b = nullptr;
        ld_b = 0;
        if (D) b = place_matrix<SHARED>(from + H * D, D, H, room, ld_b);
    }

    // y = parts of x W, or of (x A) B. Begins behind a barrier; one must follow.
    __device__ void apply(const float *x, float *y) const {
        if (!D) {
            product(w, ld, H, H, x, y);
            return;
        }
        product(w, ld, H, D, x, thin_parts);
        __syncthreads();
        for (int d = threadIdx.x; d < D; d += blockDim.x) thin[d] = whole(thin_parts, D, d);
        __syncthreads();
        product(b, ld_b, D, H, thin, y);
    }

    // x = parts of y Wᵀ, or of (y Bᵀ) Aᵀ.
    __device__ void adjoint(const float *y, float *x) const {
        if (!D) {
            product_adjoint(w, ld, H, H, y, x);
            return;
        }
        product_adjoint(b, ld_b, D, H, y, thin_parts);
        __syncthreads();
        for (int d = threadIdx.x; d < D; d += blockDim.x) thin[d] = whole(thin_parts, D, d);
        __syncthreads();
        product_adjoint(w, ld, H, D, thin, x);
    }
};

template <bool SHARED>
__device__ void irnn_forward(const float *w, const float *eta, const float *ux, const float *h0, const int *lengths,
                             float *h, float *last, i64 T, i64 N, int H, int D, int K, int eta_rows, float alpha,
                             int form, int from_zero) {
    float *state = shared_floats(), *g = state + H, *sum = g + H, *y = sum + H;
    float *room = y + max((int)blockDim.x, H);
    Operator matrix;
    matrix.place<SHARED>(w, H, D, room);
    int steps = row_steps(lengths, T);
    i64 row = blockIdx.x;
    for (int e = threadIdx.x; e < H; e += blockDim.x) state[e] = h0 ? h0[row * H + e] : 0.0f;
    for (i64 t = 0; t < steps; t++) {
        const float *size = eta + min(t, (i64)eta_rows - 1) * K;
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            g[e] = from_zero ? 0.0f : state[e];
            sum[e] = g[e] + state[e];
        }
        for (int k = 0; k < K; k++) {
            __syncthreads();
            matrix.apply(sum, y);
            __syncthreads();
            for (int e = threadIdx.x; e < H; e += blockDim.x) {
                float z = whole(y, H, e) + ux[(t * N + row) * H + e];
                if (D) z += sum[e];
                g[e] = fmaf(size[k], fmaf(-alpha, sum[e], phi(z, form)), g[e]);
                sum[e] = g[e] + state[e];
            }
        }
        for (int e = threadIdx.x; e < H; e += blockDim.x) h[(t * N + row) * H + e] = state[e] = g[e];
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) last[row * H + e] = state[e];
    zeros_behind(h, steps, T, N, H);
}

// The sum of one number of each thread, known to thread 0: within warps by halves, then warp by warp.
__device__ __forceinline__ float block_sum(float v, float *of_warps) {
    for (int by = 16; by > 0; by /= 2) v += __shfl_down_sync(0xffffffffu, v, by);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.x == 0)
        for (int i = 0; i < (int)blockDim.x / 32; i++) sum += of_warps[i];
    return sum;
}

template <bool SHARED>
__device__ void irnn_backward(const float *w, const float *eta, const float *ux, const float *h0, const int *lengths,
                              const float *h, const float *h_bar, const float *last_bar, float *ux_bar, float *s,
                              float *z_bar, float *eta_bars, float *h0_bar, i64 T, i64 N, int H, int D, int K,
                              int eta_rows, float alpha, int form, int from_zero) {
    // z_1 … z_K of a step; h_{t-1}; g or its cotangent; s_k, then the cotangent of z_k; what h_{t-1} gets.
    float *z = shared_floats(), *state = z + K * H, *g = state + H, *sum = g + H, *to_state = sum + H;
    float *of_warps = to_state + H, *y = of_warps + 32, *back = y + max((int)blockDim.x, H);
    float *room = back + max((int)blockDim.x, H);
    Operator matrix;
    matrix.place<SHARED>(w, H, D, room);
    int steps = row_steps(lengths, T);
    i64 row = blockIdx.x;
    zeros_behind(ux_bar, steps, T, N, H);
    for (i64 t = (i64)steps * K; t < T * K; t++) {
        for (int e = threadIdx.x; e < H; e += blockDim.x) s[(t * N + row) * H + e] = z_bar[(t * N + row) * H + e] = 0.0f;
        if (threadIdx.x == 0) eta_bars[row * T * K + t] = 0.0f;
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) to_state[e] = last_bar ? last_bar[row * H + e] : 0.0f;
    for (i64 t = steps - 1; t >= 0; t--) {
        const float *size = eta + min(t, (i64)eta_rows - 1) * K;
        // The inner steps once more.
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            state[e] = t > 0 ? h[((t - 1) * N + row) * H + e] : h0 ? h0[row * H + e] : 0.0f;
            g[e] = from_zero ? 0.0f : state[e];
            sum[e] = g[e] + state[e];
        }
        for (int k = 0; k < K; k++) {
            __syncthreads();
            matrix.apply(sum, y);
            __syncthreads();
            for (int e = threadIdx.x; e < H; e += blockDim.x) {
                float a = whole(y, H, e) + ux[(t * N + row) * H + e];
                if (D) a += sum[e];
                z[k * H + e] = a;
                s[((t * K + k) * N + row) * H + e] = sum[e];
                g[e] = fmaf(size[k], fmaf(-alpha, sum[e], phi(a, form)), g[e]);
                sum[e] = g[e] + state[e];
            }
        }
        // Their adjoints. Each element of g, to_state and the rest is its thread's own.
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            i64 at = (t * N + row) * H + e;
            g[e] = to_state[e] + (h_bar ? h_bar[at] : 0.0f);
            to_state[e] = 0.0f;
            ux_bar[at] = 0.0f;
        }
        for (int k = K - 1; k >= 0; k--) {
            float of_size = 0.0f;
            for (int e = threadIdx.x; e < H; e += blockDim.x) {
                i64 at = ((t * K + k) * N + row) * H + e;
                float a = z[k * H + e], y_ = phi(a, form);
                of_size = fmaf(g[e], fmaf(-alpha, s[at], y_), of_size);
                sum[e] = g[e] * size[k] * phi_slope(a, y_, form);
                z_bar[at] = sum[e];
                ux_bar[(t * N + row) * H + e] += sum[e];
            }
            of_size = block_sum(of_size, of_warps);
            if (threadIdx.x == 0) eta_bars[(row * T + t) * K + k] = of_size;
            matrix.adjoint(sum, back);
            __syncthreads();
            for (int e = threadIdx.x; e < H; e += blockDim.x) {
                float s_bar = fmaf(-alpha * size[k], g[e], whole(back, H, e));
                if (D) s_bar += sum[e];
                g[e] += s_bar;
                to_state[e] += s_bar;
            }
            __syncthreads();
        }
        if (!from_zero)
            for (int e = threadIdx.x; e < H; e += blockDim.x) to_state[e] += g[e];
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) h0_bar[row * H + e] = to_state[e];
}

#define IRNN(NAME, SHARED)                                                                                            \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        irnn_forward_##NAME(const float *w, const float *eta, const float *ux, const float *h0, const int *lengths,   \
                            float *h, float *last, i64 T, i64 N, int H, int D, int K, int eta_rows, float alpha,      \
                            int form, int from_zero) {                                                                \
        irnn_forward<SHARED>(w, eta, ux, h0, lengths, h, last, T, N, H, D, K, eta_rows, alpha, form, from_zero);      \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        irnn_backward_##NAME(const float *w, const float *eta, const float *ux, const float *h0, const int *lengths,  \
                             const float *h, const float *h_bar, const float *last_bar, float *ux_bar, float *s,      \
                             float *z_bar, float *eta_bars, float *h0_bar, i64 T, i64 N, int H, int D, int K,         \
                             int eta_rows, float alpha, int form, int from_zero) {                                    \
        irnn_backward<SHARED>(w, eta, ux, h0, lengths, h, h_bar, last_bar, ux_bar, s, z_bar, eta_bars, h0_bar, T, N,  \
                              H, D, K, eta_rows, alpha, form, from_zero);                                             \
    }

IRNN(shared, true)
IRNN(global, false)
