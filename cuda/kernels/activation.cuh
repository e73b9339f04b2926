// Activations and their adjoints. Numbers of the forms: see `Activation` in kernels/kru.rs.
#pragma once
#include "number.cuh"

enum { EXACT = 0, RC_URNN = 1, FC_URNN = 2, LRD = 3, EURNN = 4, TANH = 16, RELU = 17, LEAKY_RELU = 18, IDENTITY = 19 };

// What the forms of modReLU make of a modulus |z|: the number inside the maximum, its derivative by |z|, and the
// denominator.
struct Modulus {
    float size, slope, bottom;
};

__device__ __forceinline__ Modulus modulus(float square, int form) {
    Modulus m;
    if (form == FC_URNN) {
        m.size = sqrtf(square + 1e-5f);
        m.slope = sqrtf(square) / m.size;
        m.bottom = m.size + 1e-5f;
        return m;
    }
    m.size = sqrtf(square);
    m.slope = 1.0f;
    m.bottom = m.size;
    if (form == RC_URNN) m.bottom += 1e-5f;
    if (form == LRD) m.bottom += 1e-7f;
    if (form == EURNN) m.size = m.bottom = m.size + 0.01f;
    return m;
}

// z · max(m + b, 0) / bottom
__device__ __forceinline__ float2 activate(float2 z, float b, int form) {
    float square = fmaf(z.x, z.x, z.y * z.y);
    if (square == 0.0f) return make_float2(0.0f, 0.0f);
    Modulus m = modulus(square, form);
    float scale = fmaxf(m.size + b, 0.0f) / m.bottom;
    return make_float2(z.x * scale, z.y * scale);
}

// Cotangents of z and b for the cotangent g of the result: the closed form in the documentation of `modrelu`.
__device__ __forceinline__ float2 activate_adjoint(float2 z, float b, int form, float2 g, float &b_bar) {
    float square = fmaf(z.x, z.x, z.y * z.y);
    b_bar = 0.0f;
    if (square == 0.0f && form == EXACT) return make_float2(0.0f, 0.0f);
    Modulus m = modulus(square, form);
    float top = fmaxf(m.size + b, 0.0f), on = m.size + b > 0.0f ? 1.0f : 0.0f;
    float scale = top / m.bottom;
    float2 z_bar = make_float2(scale * g.x, scale * g.y);
    if (square == 0.0f) return z_bar;
    float r = fmaf(g.x, z.x, g.y * z.y);
    b_bar = on * r / m.bottom;
    float along = (on - scale) / m.bottom * m.slope * r / sqrtf(square);
    return make_float2(fmaf(along, z.x, z_bar.x), fmaf(along, z.y, z_bar.y));
}

__device__ __forceinline__ float activate(float z, float, int form) {
    if (form == TANH) return tanhf(z);
    if (form == RELU) return fmaxf(z, 0.0f);
    if (form == LEAKY_RELU) return z > 0.0f ? z : 0.1f * z;
    return z;
}

__device__ __forceinline__ float activate_adjoint(float z, float, int form, float g, float &b_bar) {
    b_bar = 0.0f;
    if (form == TANH) {
        float y = tanhf(z);
        return g * fmaf(-y, y, 1.0f);
    }
    if (form == RELU) return z > 0.0f ? g : 0.0f;
    if (form == LEAKY_RELU) return z > 0.0f ? g : 0.1f * g;
    return g;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
