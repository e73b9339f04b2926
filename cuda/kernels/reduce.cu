// Sums in an order that is always the same, without atomics.
#include "number.cuh"

// out[c / width · stride + c % width] = Σ_r partial[r,c]: threads of a block take rows in turn, then their sums are
// added by halves.
//   partial [R,C] float   in        out float, may be a block of columns of a wider matrix   out
// Launch: grid (C), block (128). Static shared memory.
extern "C" __global__ void __launch_bounds__(128)
    sum_rows(const float *partial, float *out, i64 R, i64 C, i64 width, i64 stride) {
    __shared__ float sums[128];
    float sum = 0.0f;
    for (i64 r = threadIdx.x; r < R; r += 128) sum += partial[r * C + blockIdx.x];
    sums[threadIdx.x] = sum;
    for (int by = 64; by > 0; by /= 2) {
        __syncthreads();
        if (threadIdx.x < by) sums[threadIdx.x] += sums[threadIdx.x + by];
    }
    if (threadIdx.x == 0) out[blockIdx.x / width * stride + blockIdx.x % width] = sums[0];
}
