// GRU with full matrices, reset before the product: the whole sequence in one launch, forward or backward, laid out as
// rnn.cu is.
//
//   r, z = σ(h_{t-1} W_r + ux_r), σ(h_{t-1} W_z + ux_z);   n = tanh((r ⊙ h_{t-1}) W_n + ux_n);   h_t = n + z (h_{t-1} - n)
//
//   w       [H,3·H]      recurrent matrices, gates in the order r, z, n                  in
//   ux      [T,N,3·H]    input side of every step, biases included                       in
//   h0      [N,H]        first state; null: zeros                                        in, may be null
//   lengths [N] int      steps of a row, cut to 0..T; null: T                            in, may be null
//   h       [T,N,H]      states; 0 from the end of a row's sequence on                   forward: out; backward: in
//   last    [N,H]        state at the end of each row's sequence                         out
//   h_bar, last_bar      cotangents of h and last; null: zeros                           in, may be null
//   ux_bar  [T,N,3·H]    also what the gradients of w are products with                  out
//   before  [T,N,2·H]    h_{t-1} and r ⊙ h_{t-1}, the other sides of those products      out
//   h0_bar  [N,H]                                                                        out
//
// Nothing may alias. Dynamic shared memory, in floats: forward 4·H + max(threads, 2·H), backward 8·H + max(threads,
// 2·H) + max(threads, H), and H·(3·H+1) for the matrices.
#include "product.cuh"

template <bool SHARED>
__device__ void gru_forward(const float *w, const float *ux, const float *h0, const int *lengths, float *h, float *last,
                            i64 T, i64 N, int H) {
    float *x = shared_floats(), *reset = x + H, *keep = reset + H, *y = keep + 2 * H;
    float *room = y + max((int)blockDim.x, 2 * H);
    int ld, steps = row_steps(lengths, T);
    const float *matrix = place_matrix<SHARED>(w, H, 3 * H, room, ld);
    i64 row = blockIdx.x;
    for (int e = threadIdx.x; e < H; e += blockDim.x) x[e] = h0 ? h0[row * H + e] : 0.0f;
    for (i64 t = 0; t < steps; t++) {
        i64 at = t * N + row;
        __syncthreads();
        product(matrix, ld, H, 2 * H, x, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            const float *u = ux + at * 3 * H + e;
            reset[e] = sigmoid(whole(y, 2 * H, e) + u[0]) * x[e];
            keep[e] = sigmoid(whole(y, 2 * H, H + e) + u[H]);
        }
        __syncthreads();
        product(matrix + 2 * H, ld, H, H, reset, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            float n = tanhf(whole(y, H, e) + ux[(at * 3 + 2) * H + e]);
            h[at * H + e] = x[e] = fmaf(keep[e], x[e] - n, n);
        }
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) last[row * H + e] = x[e];
    zeros_behind(h, steps, T, N, H);
}

template <bool SHARED>
__device__ void gru_backward(const float *w, const float *ux, const float *h0, const int *lengths, const float *h,
                             const float *h_bar, const float *last_bar, float *ux_bar, float *before, float *h0_bar,
                             i64 T, i64 N, int H) {
    // State, r, r ⊙ state, z; cotangents of the arguments of r, z, n; what the state gets besides.
    float *x = shared_floats(), *r = x + H, *reset = r + H, *z = reset + H, *a_bar = z + H, *direct = a_bar + 3 * H;
    float *y = direct + H, *carry = y + max((int)blockDim.x, 2 * H), *room = carry + max((int)blockDim.x, H);
    int ld, steps = row_steps(lengths, T);
    const float *matrix = place_matrix<SHARED>(w, H, 3 * H, room, ld);
    i64 row = blockIdx.x;
    zeros_behind(ux_bar, steps, T, N, 3 * H);
    zeros_behind(before, steps, T, N, 2 * H);
    for (int e = threadIdx.x; e < H; e += blockDim.x) direct[e] = last_bar ? last_bar[row * H + e] : 0.0f;
    for (i64 t = steps - 1; t >= 0; t--) {
        i64 at = t * N + row;
        const float *u = ux + at * 3 * H;
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            x[e] = t > 0 ? h[(at - N) * H + e] : h0 ? h0[row * H + e] : 0.0f;
            before[at * 2 * H + e] = x[e];
            if (t < steps - 1) direct[e] += whole(carry, H, e);
            if (h_bar) direct[e] += h_bar[at * H + e];
        }
        __syncthreads();
        product(matrix, ld, H, 2 * H, x, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            r[e] = sigmoid(whole(y, 2 * H, e) + u[e]);
            z[e] = sigmoid(whole(y, 2 * H, H + e) + u[H + e]);
            before[(at * 2 + 1) * H + e] = reset[e] = r[e] * x[e];
        }
        __syncthreads();
        product(matrix + 2 * H, ld, H, H, reset, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            float n = tanhf(whole(y, H, e) + u[2 * H + e]), up = direct[e];
            a_bar[H + e] = up * (x[e] - n) * z[e] * (1.0f - z[e]);
            a_bar[2 * H + e] = up * (1.0f - z[e]) * fmaf(-n, n, 1.0f);
            direct[e] = up * z[e];
        }
        __syncthreads();
        product_adjoint(matrix + 2 * H, ld, H, H, a_bar + 2 * H, carry);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            float reset_bar = whole(carry, H, e);
            a_bar[e] = reset_bar * x[e] * r[e] * (1.0f - r[e]);
            direct[e] = fmaf(reset_bar, r[e], direct[e]);
#pragma unroll
            for (int q = 0; q < 3; q++) ux_bar[at * 3 * H + q * H + e] = a_bar[q * H + e];
        }
        __syncthreads();
        product_adjoint(matrix, ld, H, 2 * H, a_bar, carry);
        __syncthreads();
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x)
        h0_bar[row * H + e] = steps > 0 ? direct[e] + whole(carry, H, e) : direct[e];
}

#define GRU(NAME, SHARED)                                                                                             \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        gru_forward_##NAME(const float *w, const float *ux, const float *h0, const int *lengths, float *h,            \
                           float *last, i64 T, i64 N, int H) {                                                        \
        gru_forward<SHARED>(w, ux, h0, lengths, h, last, T, N, H);                                                    \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        gru_backward_##NAME(const float *w, const float *ux, const float *h0, const int *lengths, const float *h,     \
                            const float *h_bar, const float *last_bar, float *ux_bar, float *before, float *h0_bar,   \
                            i64 T, i64 N, int H) {                                                                    \
        gru_backward<SHARED>(w, ux, h0, lengths, h, h_bar, last_bar, ux_bar, before, h0_bar, T, N, H);                \
    }

GRU(shared, true)
GRU(global, false)
