/* What stands between the products of a layer, each in one walk over the numbers: norm, RoPE, gate.

   fused_cpu.py compiles this file where it runs. Where torch rounds a step to the stored type, so does this: in
   bfloat16 the same numbers come out. A row's D or F numbers lie side by side, rows and heads wherever the
   strides say, counted in numbers. */

#include "numbers.h"

/* `work` for every i below n. A plain loop for one thread: OpenMP's team of one costs more than a small row. */
#define EACH(i, n, n_threads, work)                                                                                \
    if (n_threads == 1)                                                                                            \
        for (int64_t i = 0; i < n; i++) work;                                                                      \
    else {                                                                                                         \
        _Pragma("omp parallel for num_threads(n_threads)") for (int64_t i = 0; i < n; i++) work;                   \
    }

INLINE void norm_row(const STORED *restrict x, const STORED *restrict weight, STORED *restrict out, int D, SUM eps) {
    SUM squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int d = 0; d < D; d++) squares += widen(x[d]) * widen(x[d]);
    const SUM scale = 1 / sqrtf(squares / D + eps);
    for (int d = 0; d < D; d++) out[d] = narrow(widen(narrow(widen(x[d]) * scale)) * widen(weight[d]));
}

/* x: n rows of `heads` heads, each D numbers; out the same, side by side. */
void rms_norm(const STORED *x, int64_t row, int64_t head, const STORED *weight, float eps, STORED *out, int64_t n,
              int heads, int D, int n_threads) {
    EACH(i, n * heads, n_threads,
         norm_row(x + i / heads * row + i % heads * head, weight, out + i * D, D, eps))
}

/* The pairs (d, d + D/2) of every head of a token; D is a constant where it is inlined. */
INLINE void rotate_row(STORED *x, int64_t head, const STORED *restrict cos, const STORED *restrict sin, int heads,
                       int D) {
    for (int h = 0; h < heads; h++) {
        STORED *restrict first = x + h * head, *restrict second = first + D / 2;
#pragma omp simd
        for (int d = 0; d < D / 2; d++) {
            const SUM a = widen(first[d]), b = widen(second[d]);
            first[d] = narrow(widen(narrow(a * widen(cos[d]))) + b * widen(sin[d]));
            second[d] = narrow(widen(narrow(b * widen(cos[D / 2 + d]))) + a * widen(sin[D / 2 + d]));
        }
    }
}

/* x: n rows of `heads` heads, turned where they are; cos and sin: n rows of D numbers, side by side. */
void rotate(STORED *x, int64_t row, int64_t head, const STORED *cos, const STORED *sin, int64_t n, int heads, int D,
            int n_threads) {
    if (D == 64) {
        EACH(i, n, n_threads, rotate_row(x + i * row, head, cos + i * D, sin + i * D, heads, 64))
    } else {
        EACH(i, n, n_threads, rotate_row(x + i * row, head, cos + i * D, sin + i * D, heads, D))
    }
}

INLINE void gate_row(const STORED *restrict gate, const STORED *restrict up, STORED *restrict out, int F) {
#pragma omp simd
    for (int f = 0; f < F; f++) {
        const SUM g = widen(gate[f]);
        out[f] = narrow(widen(narrow(g / (1 + exponential(-g)))) * widen(up[f]));
    }
}

/* silu(gate) * up; gate_up: n rows of 2 F numbers, the gate's first; out: n rows of F numbers, side by side. */
void gated(const STORED *gate_up, int64_t row, STORED *out, int64_t n, int F, int n_threads) {
    EACH(i, n, n_threads, gate_row(gate_up + i * row, gate_up + i * row + F, out + i * F, F))
}
