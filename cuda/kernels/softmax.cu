// Cross-entropy of the softmax of logits with a class, and its cotangent, in one launch.
//
//   loss[r] = weight[r] · (log Σ_o exp(x[r,o]) - x[r,target[r]]);   x_bar[r,o] = weight[r] · (softmax(x[r])[o] - [o = target[r]])
//
//   x       [R,O]     logits                                                         in
//   target  [R] int   class; outside 0..O both results are NaN                       in
//   weight  [R]       null: 1; where it is 0 both results are 0, whatever the rest   in, may be null
//   scale             factor of x_bar alone, as 1/R for the cotangent of a mean      in
//   loss    [R]                                                                      out
//   x_bar   [R,O]     null: not wanted                                               out, may be null
//
// Nothing may alias. Launch: grid (ceil(R/4)), block (128): a warp takes a row.
#include "number.cuh"

__device__ __forceinline__ float warp_max(float v) {
    for (int by = 16; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, by));
    return v;
}

__device__ __forceinline__ float warp_sum(float v) {
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
    return v;
}

extern "C" __global__ void __launch_bounds__(128)
    softmax_cross_entropy(const float *x, const int *target, const float *weight, float *loss, float *x_bar, i64 R,
                          i64 O, float scale) {
    i64 row = (i64)blockIdx.x * 4 + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= R) return;
    const float *from = x + row * O;
    float w = weight ? weight[row] : 1.0f;
    if (w == 0.0f) {
        if (lane == 0) loss[row] = 0.0f;
        if (x_bar)
            for (i64 o = lane; o < O; o += 32) x_bar[row * O + o] = 0.0f;
        return;
    }
    float top = __int_as_float(0xff800000);
    for (i64 o = lane; o < O; o += 32) top = fmaxf(top, from[o]);
    top = warp_max(top);
    float sum = 0.0f;
    for (i64 o = lane; o < O; o += 32) sum += expf(from[o] - top);
    sum = warp_sum(sum);
    int class_ = target[row];
    bool known = class_ >= 0 && class_ < O;
    float nan = __int_as_float(0x7fc00000);
    if (lane == 0) loss[row] = known ? w * (logf(sum) + top - from[class_]) : nan;
    if (!x_bar) return;
    for (i64 o = lane; o < O; o += 32) {
        float p = expf(from[o] - top) / sum - (o == class_ ? 1.0f : 0.0f);
        x_bar[row * O + o] = known ? w * scale * p : nan;
    }
}
