// Adam for all parameters in one launch.
//
//   g = grad + l2 θ;  m = β₁ m + (1-β₁) g;  v = β₂ v + (1-β₂) g²;  θ = shrink θ - scale m / (√v / root + ε)
//
//   table  [P,3] 64-bit words   address of the parameter, of its gradient, number of its first element      in
//   m, v   [n]                  elements of all parameters one after the other; start at 0                  in, out
//   n                           number of all elements
//   scale = η/(1-β₁ᵗ), root = √(1-β₂ᵗ), shrink = 1 - η λ for decoupled decay, l2 = λ for the other
//
// Parameters, gradients, m and v may not alias. Launch: grid (any), block (256).
#include "number.cuh"

struct Row {
    float *parameter;
    const float *gradient;
    i64 first;
};

extern "C" __global__ void __launch_bounds__(256)
    adam(const Row *table, int P, float *m, float *v, i64 n, float beta1, float beta2, float epsilon, float scale,
         float root, float shrink, float l2) {
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < n; i += (i64)gridDim.x * 256) {
        // The last row that begins at i or before it.
        int low = 0, high = P;
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (table[middle].first <= i) low = middle;
            else high = middle;
        }
        Row row = table[low];
        i64 at = i - row.first;
        float theta = row.parameter[at], g = fmaf(l2, theta, row.gradient[at]);
        float mean = fmaf(beta1, m[i], (1.0f - beta1) * g), square = fmaf(beta2, v[i], (1.0f - beta2) * g * g);
        m[i] = mean;
        v[i] = square;
        row.parameter[at] = shrink * theta - scale * mean / (sqrtf(square) / root + epsilon);
    }
}
