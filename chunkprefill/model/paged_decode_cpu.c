/* Attention of decoding steps over a cache in blocks: one call for all sequences, and no key is copied.

   paged_decode_cpu.py compiles this file where it runs. q, the cache and the output hold STORED. */

#include <stdlib.h>

#include "numbers.h"

enum { MOST_D = 256, MOST_G = 16 }; /* head size, query heads that share a key head */

/* Where position j of a sequence lies. The position `size` further on is fetched ahead: blocks lie anywhere, so
   the processor cannot foresee where the next one begins. */
INLINE const STORED *at(const STORED *all, const int32_t *table, int j, int end, int size, int64_t slot, int D) {
    const STORED *next = all + ((int64_t)table[(j + size < end ? j + size : j) / size] * size + j % size) * slot;
    for (int d = 0; d < D; d += 64 / (int)sizeof(STORED)) __builtin_prefetch(next + d);
    return all + ((int64_t)table[j / size] * size + j % size) * slot;
}

/* One sequence and one key head, for the G queries that share it; D and G are constants where it is inlined. */
INLINE void attend(const STORED *q, const STORED *keys, const STORED *values, const int32_t *table, int end,
                   int size, int64_t slot, int G, int D, SUM *scores, STORED *out) {
    SUM query[MOST_G][MOST_D], sum[MOST_G][MOST_D], total[MOST_G], top[MOST_G], row[MOST_D];
    const SUM scale = 1 / sqrt((SUM)D);
    for (int g = 0; g < G; g++) {
        top[g] = -INFINITY;
        for (int d = 0; d < D; d++) query[g][d] = widen(q[g * D + d]) * scale, sum[g][d] = 0;
    }
    for (int j = 0; j < end; j++) {
        const STORED *k = at(keys, table, j, end, size, slot, D);
        for (int d = 0; d < D; d++) row[d] = widen(k[d]);
        for (int g = 0; g < G; g++) {
            SUM dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int d = 0; d < D; d++) dot += query[g][d] * row[d];
            scores[(int64_t)g * end + j] = dot;
            top[g] = dot > top[g] ? dot : top[g];
        }
    }
    for (int g = 0; g < G; g++) {
        SUM *score = scores + (int64_t)g * end, highest = top[g], all = 0;
#pragma omp simd reduction(+ : all)
        for (int j = 0; j < end; j++) {
            score[j] = exponential(score[j] - highest);
            all += score[j];
        }
        total[g] = all;
    }
    for (int j = 0; j < end; j++) {
        const STORED *v = at(values, table, j, end, size, slot, D);
        for (int d = 0; d < D; d++) row[d] = widen(v[d]);
        for (int g = 0; g < G; g++) {
            SUM weight = scores[(int64_t)g * end + j];
#pragma omp simd
            for (int d = 0; d < D; d++) sum[g][d] += weight * row[d];
        }
    }
    for (int g = 0; g < G; g++)
        for (int d = 0; d < D; d++) out[g * D + d] = narrow(sum[g][d] / total[g]);
}

/* q: n rows of n_kv_heads * G * D numbers, q_row apart; out the same, side by side. tables: n rows of `width`
   block ids; ends: positions filled. Returns 0, or 1 where memory for the scores could not be had. */
int paged_decode(const STORED *q, int64_t q_row, const STORED *keys, const STORED *values,
                 const int32_t *tables, const int32_t *ends, STORED *out, int n, int width, int size,
                 int n_kv_heads, int G, int D, int longest, int n_threads) {
    int failed = 0;
#pragma omp parallel num_threads(n_threads) reduction(| : failed)
    {
        SUM *scores = malloc((size_t)G * longest * sizeof(SUM));
        failed = scores == NULL;
#pragma omp for schedule(dynamic)
        for (int task = 0; task < n * n_kv_heads; task++) {
            if (failed) continue;
            int i = task / n_kv_heads, h = task % n_kv_heads;
            const STORED *mine = q + i * q_row + (int64_t)h * G * D;
            STORED *here = out + ((int64_t)i * n_kv_heads + h) * G * D;
            const STORED *k = keys + (int64_t)h * D, *v = values + (int64_t)h * D;
            const int32_t *table = tables + (int64_t)i * width;
            const int64_t slot = (int64_t)n_kv_heads * D;
            if (D == 64 && G == 3)
                attend(mine, k, v, table, ends[i], size, slot, 3, 64, scores, here);
            else if (D == 64)
                attend(mine, k, v, table, ends[i], size, slot, G, 64, scores, here);
            else if (D == 128)
                attend(mine, k, v, table, ends[i], size, slot, G, 128, scores, here);
            else
                attend(mine, k, v, table, ends[i], size, slot, G, D, scores, here);
        }
        free(scores);
    }
    return failed;
}
