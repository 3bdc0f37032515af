/* What the kernels of this folder share. `compiled_c.py` compiles each once for every type of number it takes:
   STORED is what tensors hold (float, double, or uint16_t for bfloat16), SUM is what is computed in. */

#include <math.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef BFLOAT16
INLINE SUM widen(STORED x) {
    union { uint32_t bits; float number; } u = {(uint32_t)x << 16};
    return u.number;
}
INLINE STORED narrow(SUM x) { /* to the nearest, ties to even */
    union { float number; uint32_t bits; } u = {x};
    return x != x ? 0x7fc0 : (STORED)((u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16);
}
#else
INLINE SUM widen(STORED x) { return x; }
INLINE STORED narrow(SUM x) { return x; }
#endif

#ifdef DOUBLE
INLINE double exponential(double x) { return exp(x); }
#else
/* e^x to a relative 1e-7, infinite above 88.7 and not below 1.8e-38: 2^n times a polynomial on half a step around
   0. libm's is not inlined. */
INLINE float exponential(float x) {
    x = x < -86.9f ? -86.9f : x > 89.0f ? 89.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t bits; float number; } half_of_it = {((int32_t)n + 126) << 23}; /* 2^128 is no float */
    return 2 * p * half_of_it.number;
}
#endif
