// Real and complex numbers under one set of names, so that a kernel is written once.
// A complex number is `float2`, real part first, as the host has it.
#pragma once

typedef long long i64;

__device__ __forceinline__ float zero(float) { return 0.0f; }
__device__ __forceinline__ float2 zero(float2) { return make_float2(0.0f, 0.0f); }

__device__ __forceinline__ float add(float a, float b) { return a + b; }
__device__ __forceinline__ float2 add(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }

// c + a·b
__device__ __forceinline__ float mul_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ float2 mul_add(float2 a, float2 b, float2 c) {
    return make_float2(fmaf(a.x, b.x, fmaf(-a.y, b.y, c.x)), fmaf(a.x, b.y, fmaf(a.y, b.x, c.y)));
}

// c + conj(a)·b
__device__ __forceinline__ float conj_mul_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ float2 conj_mul_add(float2 a, float2 b, float2 c) {
    return make_float2(fmaf(a.x, b.x, fmaf(a.y, b.y, c.x)), fmaf(a.x, b.y, fmaf(-a.y, b.x, c.y)));
}
