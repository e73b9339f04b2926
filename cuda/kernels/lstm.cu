// LSTM with full matrices: the whole sequence in one launch, forward or backward, laid out as rnn.cu is.
//
//   [i f g o] = h_{t-1} W + ux_t;   i, f, o = σ(·), g = tanh(·);   c_t = f c_{t-1} + i g;   h_t = o tanh(c_t)
//
//   w       [H,4·H]      recurrent matrices, gates in the order i, f, g, o               in
//   ux      [T,N,4·H]    input side of every step, biases included                       in
//   h0, c0  [N,H]        first state; null: zeros                                        in, may be null
//   lengths [N] int      steps of a row, cut to 0..T; null: T                            in, may be null
//   h, c    [T,N,H]      states; 0 from the end of a row's sequence on                   forward: out; backward: in
//   last, last_c [N,H]   state at the end of each row's sequence                         out
//   h_bar, last_bar, last_c_bar   cotangents of h, last, last_c; null: zeros             in, may be null
//   ux_bar  [T,N,4·H]    also what the gradient of w is the product with                 out
//   before  [T,N,H]      h_{t-1}, the other side of that product                         out
//   h0_bar, c0_bar [N,H]                                                                 out
//
// Nothing may alias. Dynamic shared memory, in floats: forward 2·H + max(threads, 4·H), backward 6·H + max(threads,
// 4·H) + max(threads, H), and H·(4·H+1) for the matrices.
#include "product.cuh"

template <bool SHARED>
__device__ void lstm_forward(const float *w, const float *ux, const float *h0, const float *c0, const int *lengths,
                             float *h, float *c, float *last, float *last_c, i64 T, i64 N, int H) {
    int G = 4 * H;
    float *x = shared_floats(), *cell = x + H, *y = cell + H, *room = y + max((int)blockDim.x, G);
    int ld, steps = row_steps(lengths, T);
    const float *matrix = place_matrix<SHARED>(w, H, G, room, ld);
    i64 row = blockIdx.x;
    for (int e = threadIdx.x; e < H; e += blockDim.x) {
        x[e] = h0 ? h0[row * H + e] : 0.0f;
        cell[e] = c0 ? c0[row * H + e] : 0.0f;
    }
    for (i64 t = 0; t < steps; t++) {
        __syncthreads();
        product(matrix, ld, H, G, x, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            i64 at = t * N + row;
            const float *u = ux + at * G + e;
            float i = sigmoid(whole(y, G, e) + u[0]), f = sigmoid(whole(y, G, H + e) + u[H]);
            float g = tanhf(whole(y, G, 2 * H + e) + u[2 * H]), o = sigmoid(whole(y, G, 3 * H + e) + u[3 * H]);
            cell[e] = fmaf(f, cell[e], i * g);
            x[e] = o * tanhf(cell[e]);
            c[at * H + e] = cell[e];
            h[at * H + e] = x[e];
        }
    }
    for (int e = threadIdx.x; e < H; e += blockDim.x) {
        last[row * H + e] = x[e];
        last_c[row * H + e] = cell[e];
    }
    zeros_behind(h, steps, T, N, H);
    zeros_behind(c, steps, T, N, H);
}

template <bool SHARED>
__device__ void lstm_backward(const float *w, const float *ux, const float *h0, const float *c0, const int *lengths,
                              const float *h, const float *c, const float *h_bar, const float *last_bar,
                              const float *last_c_bar, float *ux_bar, float *before, float *h0_bar, float *c0_bar,
                              i64 T, i64 N, int H) {
    int G = 4 * H;
    float *x = shared_floats(), *cell_bar = x + H, *a_bar = cell_bar + H, *y = a_bar + G;
    float *carry = y + max((int)blockDim.x, G), *room = carry + max((int)blockDim.x, H);
    int ld, steps = row_steps(lengths, T);
    const float *matrix = place_matrix<SHARED>(w, H, G, room, ld);
    i64 row = blockIdx.x;
    zeros_behind(ux_bar, steps, T, N, G);
    zeros_behind(before, steps, T, N, H);
    for (int e = threadIdx.x; e < H; e += blockDim.x) cell_bar[e] = last_c_bar ? last_c_bar[row * H + e] : 0.0f;
    for (i64 t = steps - 1; t >= 0; t--) {
        i64 at = t * N + row;
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            x[e] = t > 0 ? h[(at - N) * H + e] : h0 ? h0[row * H + e] : 0.0f;
            before[at * H + e] = x[e];
        }
        __syncthreads();
        product(matrix, ld, H, G, x, y);
        __syncthreads();
        for (int e = threadIdx.x; e < H; e += blockDim.x) {
            const float *u = ux + at * G + e;
            float i = sigmoid(whole(y, G, e) + u[0]), f = sigmoid(whole(y, G, H + e) + u[H]);
            float g = tanhf(whole(y, G, 2 * H + e) + u[2 * H]), o = sigmoid(whole(y, G, 3 * H + e) + u[3 * H]);
            float before_c = t > 0 ? c[(at - N) * H + e] : c0 ? c0[row * H + e] : 0.0f;
            float squashed = tanhf(c[at * H + e]);
            float up = h_bar ? h_bar[at * H + e] : 0.0f;
            if (t < steps - 1) up += whole(carry, H, e);
            else if (last_bar) up += last_bar[row * H + e];
            float c_bar = fmaf(up * o, fmaf(-squashed, squashed, 1.0f), cell_bar[e]);
            cell_bar[e] = c_bar * f;
            float bars[4] = {c_bar * g * i * (1.0f - i), c_bar * before_c * f * (1.0f - f),
                             c_bar * i * fmaf(-g, g, 1.0f), up * squashed * o * (1.0f - o)};
#pragma unroll
            for (int q = 0; q < 4; q++) ux_bar[at * G + q * H + e] = a_bar[q * H + e] = bars[q];
        }
        __syncthreads();
        product_adjoint(matrix, ld, H, G, a_bar, carry);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < H; e += blockDim.x) {
        h0_bar[row * H + e] = steps > 0 ? whole(carry, H, e) : last_bar ? last_bar[row * H + e] : 0.0f;
        c0_bar[row * H + e] = cell_bar[e];
    }
}

#define LSTM(NAME, SHARED)                                                                                            \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        lstm_forward_##NAME(const float *w, const float *ux, const float *h0, const float *c0, const int *lengths,    \
                            float *h, float *c, float *last, float *last_c, i64 T, i64 N, int H) {                    \
        lstm_forward<SHARED>(w, ux, h0, c0, lengths, h, c, last, last_c, T, N, H);                                    \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                              \
        lstm_backward_##NAME(const float *w, const float *ux, const float *h0, const float *c0, const int *lengths,   \
                             const float *h, const float *c, const float *h_bar, const float *last_bar,               \
                             const float *last_c_bar, float *ux_bar, float *before, float *h0_bar, float *c0_bar,     \
                             i64 T, i64 N, int H) {                                                                   \
        lstm_backward<SHARED>(w, ux, h0, c0, lengths, h, c, h_bar, last_bar, last_c_bar, ux_bar, before, h0_bar,      \
                              c0_bar, T, N, H);                                                                       \
    }

LSTM(shared, true)
LSTM(global, false)
