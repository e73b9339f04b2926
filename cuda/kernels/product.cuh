// Products of the state of one row with a matrix, by all threads of a block.
//
// Where there are more threads than results, several threads share one: each forms the sum over a part of the terms,
// and whoever reads the result adds the parts up in order. So a result is `parts` numbers, `parts(outputs)` of them.
// The matrix lies in shared memory where it fits, with rows one number longer than they need to be, so that threads
// that walk along rows meet different banks; else it stays in global memory.
#pragma once
#include "activation.cuh"

__device__ __forceinline__ float *shared_floats() {
    extern __shared__ __align__(16) float floats[];
    return floats;
}

__device__ __forceinline__ int up32(int n) { return (n + 31) & ~31; }

__device__ __forceinline__ int parts(int outputs) {
    int fit = blockDim.x / up32(outputs);
    return fit < 1 ? 1 : fit > 8 ? 8 : fit;
}

// The matrix w [K,C] to work with, in `room` if SHARED, and the length of its rows. A barrier must follow.
template <bool SHARED>
__device__ __forceinline__ const float *place_matrix(const float *w, int K, int C, float *&room, int &ld) {
    if (!SHARED) {
        ld = C;
        return w;
    }
    ld = C + 1;
    float *copy = room;
    for (int i = threadIdx.x; i < K * C; i += blockDim.x) copy[i / C * ld + i % C] = w[i];
    room += K * ld;
    return copy;
}

// y[s,c] = Σ_{k in part s} x[k] w[k,c]
__device__ __forceinline__ void product(const float *w, int ld, int K, int C, const float *x, float *y) {
    int wide = up32(C), S = parts(C);
    for (int u = threadIdx.x; u < S * wide; u += blockDim.x) {
        int s = u / wide, c = u - s * wide;
        if (c >= C) continue;
        float sum = 0.0f;
        int end = (s + 1) * K / S;
        for (int k = s * K / S; k < end; k++) sum = fmaf(x[k], w[k * ld + c], sum);
        y[s * C + c] = sum;
    }
}

// x[s,k] = Σ_{c in part s} y[c] w[k,c]
__device__ __forceinline__ void product_adjoint(const float *w, int ld, int K, int C, const float *y, float *x) {
    int wide = up32(K), S = parts(K);
    for (int u = threadIdx.x; u < S * wide; u += blockDim.x) {
        int s = u / wide, k = u - s * wide;
        if (k >= K) continue;
        float sum = 0.0f;
        int end = (s + 1) * C / S;
        for (int c = s * C / S; c < end; c++) sum = fmaf(y[c], w[k * ld + c], sum);
        x[s * K + k] = sum;
    }
}

// Result i of n from its parts.
__device__ __forceinline__ float whole(const float *y, int n, int i) {
    float sum = y[i];
    for (int s = 1, S = parts(n); s < S; s++) sum += y[s * n + i];
    return sum;
}

__device__ __forceinline__ int row_steps(const int *lengths, i64 T) {
    return lengths ? min(max(lengths[blockIdx.x], 0), (int)T) : (int)T;
}

// Zeros from the end of a row's sequence on: out [T,N,width].
__device__ __forceinline__ void zeros_behind(float *out, int steps, i64 T, i64 N, int width) {
    for (i64 t = steps; t < T; t++)
        for (int e = threadIdx.x; e < width; e += blockDim.x) out[(t * N + blockIdx.x) * width + e] = 0.0f;
}
