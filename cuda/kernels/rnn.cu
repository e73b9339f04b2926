// Plain recurrent network with a full matrix: the whole sequence in one launch, forward or backward. A block takes one
// row of the batch through time and keeps the matrix in shared memory if it fits (`_shared`), else reads it through
// the caches (`_global`).
//
//   h_t = act(h_{t-1} W + ux_t)
//
// Launch: grid (N), block (threads, a multiple of 32, at most 512); T may be 0.
//
//   w       [H,H]        recurrent matrix, from a state to a state                       in
//   ux      [T,N,H]      input side of every step, bias included                         in
//   h0      [N,H]        first state; null: zeros                                        in, may be null
//   lengths [N] int      steps of a row, cut to 0..T; null: T                            in, may be null
//   h       [T,N,H]      states; 0 from the end of a row's sequence on                   forward: out; backward: in
//   last    [N,H]        state at the end of each row's sequence                         out
//   h_bar, last_bar      cotangents of h and last; null: zeros                           in, may be null
//   ux_bar  [T,N,H]      also what the gradient of w is the product with                 out
//   before  [T,N,H]      h_{t-1}, the other side of that product                         out
//   h0_bar  [N,H]                                                                        out
//
// Nothing may alias. Dynamic shared memory, in floats: forward H + max(threads, H), backward 2·H + 2·max(threads, H),
// and H·(H+1) for the matrix.
#include "product.cuh"

template <bool SHARED>
__device__ void rnn_forward(const float *w, const float *ux, const float *h0, const int *lengths, float *h, float *last,
                            i64 T, i64 N, int H, int form) {
    float *x = shared_floats(), *y = x + H, *room = y + max((int)blockDim.x, H);
    int ld, steps = row_steps(lengths, T);
    const float *matrix = place_matrix<SHARED>(w, H, H, room, ld);
    i64 row = blockIdx.x;
    for (int e = threadIdx.x; e < H; e += blockDim.x) x[e] = h0 ? h0[row * H + e] : 0.0f;
    for (i64 t = 0; t < steps; t++) {
        __syncthreads();
        product(matrix, ld, H, H, x, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            i64 at = (t * N + row) * H + e;
            h[at] = x[e] = activate(whole(y, H, e) + ux[at], 0.0f, form);
        }
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) last[row * H + e] = x[e];
    zeros_behind(h, steps, T, N, H);
}

template <bool SHARED>
__device__ void rnn_backward(const float *w, const float *ux, const float *h0, const int *lengths, const float *h,
                             const float *h_bar, const float *last_bar, float *ux_bar, float *before, float *h0_bar,
                             i64 T, i64 N, int H, int form) {
    int wide = max((int)blockDim.x, H);
    float *x = shared_floats(), *a_bar = x + H, *y = a_bar + H, *carry = y + wide, *room = carry + wide;
    int ld, steps = row_steps(lengths, T);
    const float *matrix = place_matrix<SHARED>(w, H, H, room, ld);
    i64 row = blockIdx.x;
    zeros_behind(ux_bar, steps, T, N, H);
    zeros_behind(before, steps, T, N, H);
    for (i64 t = steps - 1; t >= 0; t--) {
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            i64 at = (t * N + row) * H + e;
            x[e] = t > 0 ? h[at - N * H] : h0 ? h0[row * H + e] : 0.0f;
            before[at] = x[e];
        }
        __syncthreads();
        product(matrix, ld, H, H, x, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            i64 at = (t * N + row) * H + e;
            float g = h_bar ? h_bar[at] : 0.0f, none;
            if (t < steps - 1) g += whole(carry, H, e);
            else if (last_bar) g += last_bar[row * H + e];
            ux_bar[at] = a_bar[e] = activate_adjoint(whole(y, H, e) + ux[at], 0.0f, form, g, none);
        }
        __syncthreads();
        product_adjoint(matrix, ld, H, H, a_bar, carry);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < H; e += blockDim.x)
        h0_bar[row * H + e] = steps > 0 ? whole(carry, H, e) : last_bar ? last_bar[row * H + e] : 0.0f;
}

#define RNN(NAME, SHARED)                                                                                             \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        rnn_forward_##NAME(const float *w, const float *ux, const float *h0, const int *lengths, float *h,            \
                           float *last, i64 T, i64 N, int H, int form) {                                              \
        rnn_forward<SHARED>(w, ux, h0, lengths, h, last, T, N, H, form);                                              \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        rnn_backward_##NAME(const float *w, const float *ux, const float *h0, const int *lengths, const float *h,     \
                            const float *h_bar, const float *last_bar, float *ux_bar, float *before, float *h0_bar,   \
                            i64 T, i64 N, int H, int form) {                                                          \
        rnn_backward<SHARED>(w, ux, h0, lengths, h, h_bar, last_bar, ux_bar, before, h0_bar, T, N, H, form);          \
    }

RNN(shared, true)
RNN(global, false)
