/* Log-linear histogram of nanoseconds, 64 steps per power of two (error < 1.6 %). */
#ifndef HIST_H
#define HIST_H
#include <stdint.h>

typedef struct {
  uint64_t c[64 * 42], n, max;
  double sum;
} hist;

static inline void h_add(hist *h, uint64_t v) {
  int b = v < 64 ? 0 : 63 - __builtin_clzll(v) - 5;
  unsigned i = b ? (unsigned)(b * 64 + ((v >> (b - 1)) & 63)) : (unsigned)v;
  if (i >= 64 * 42)
    i = 64 * 42 - 1;
  h->c[i]++;
  h->n++;
  h->sum += v;
  if (v > h->max)
    h->max = v;
}

static inline double h_q(hist *h, double q) { /* value in ms */
  if (!h->n)
    return 0;
  uint64_t want = (uint64_t)(q * h->n), a = 0;
  if (want >= h->n)
    want = h->n - 1;
  for (unsigned i = 0; i < 64 * 42; i++) {
    a += h->c[i];
    if (a > want) {
      unsigned b = i / 64, s = i % 64;
      double v = b ? (double)((64ull + s) << (b - 1)) : (double)i;
      return v / 1e6;
    }
  }
  return h->max / 1e6;
}
#endif
