// Products of matrices in single precision, exactly as written: sums in a fixed order, every product rounded once.
//
//   c[p,i,j] = Σ_{k in part p} a(i,k) · b(k,j);   one part unless the sum is long: sum_rows then adds the parts up.
//
//   a  [M,K] with row length lda; with `a_across`, [K,M]: a(i,k) lies at k·lda + i                     in
//   b  [K,N] with row length ldb; with `b_across`, [N,K]                                               in
//   c  [parts,M,N]; with `bias` [N] (null: none), added to the first part                              out
//
// Launch: grid (ceil(M/64)·ceil(N/64), parts), block (256). A thread forms 4x4 results from tiles in static shared
// memory.
#include "number.cuh"

#define TILE 64
#define DEPTH 16

extern "C" __global__ void __launch_bounds__(256)
    matmul(const float *a, const float *b, const float *bias, float *c, i64 M, i64 N, i64 K, i64 lda, i64 ldb,
           int a_across, int b_across) {
    __shared__ float ta[DEPTH][TILE + 1], tb[DEPTH][TILE + 1];
    i64 across = (N + TILE - 1) / TILE;
    i64 i0 = blockIdx.x / across * TILE, j0 = blockIdx.x % across * TILE;
    // Parts are multiples of DEPTH long, but for the last one.
    i64 chunks = (K + DEPTH - 1) / DEPTH, parts = gridDim.y;
    i64 from = chunks * blockIdx.y / parts * DEPTH, to = min(K, chunks * (blockIdx.y + 1) / parts * DEPTH);
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float sum[4][4] = {};
    for (i64 k0 = from; k0 < to; k0 += DEPTH) {
#pragma unroll
        for (int q = 0; q < TILE * DEPTH / 256; q++) {
            int at = q * 256 + threadIdx.x;
            int k = a_across ? at / TILE : at % DEPTH, i = a_across ? at % TILE : at / DEPTH;
            bool in = k0 + k < to && i0 + i < M;
            ta[k][i] = in ? a[a_across ? (k0 + k) * lda + i0 + i : (i0 + i) * lda + k0 + k] : 0.0f;
            k = b_across ? at % DEPTH : at / TILE;
            int j = b_across ? at / DEPTH : at % TILE;
            in = k0 + k < to && j0 + j < N;
            tb[k][j] = in ? b[b_across ? (j0 + j) * ldb + k0 + k : (k0 + k) * ldb + j0 + j] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++)
#pragma unroll
            for (int p = 0; p < 4; p++)
#pragma unroll
                for (int q = 0; q < 4; q++) sum[p][q] = fmaf(ta[k][ty + 16 * p], tb[k][tx + 16 * q], sum[p][q]);
        __syncthreads();
    }
#pragma unroll
    for (int p = 0; p < 4; p++)
#pragma unroll
        for (int q = 0; q < 4; q++) {
            i64 i = i0 + ty + 16 * p, j = j0 + tx + 16 * q;
            if (i < M && j < N)
                c[((i64)blockIdx.y * M + i) * N + j] = sum[p][q] + (bias && blockIdx.y == 0 ? bias[j] : 0.0f);
        }
}
