/* What processes cost: CPU, RSS and PSS of a list of processes or of whole process trees, read from /proc. */
#define _GNU_SOURCE
#include "procs.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static void read_proc(sample *s, int pid, int with_pss) {
  char path[64], buf[1024];
  if (s->n >= MAXP)
    return;
  for (int i = 0; i < s->n; i++)
    if (s->p[i].pid == pid)
      return;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *f = fopen(path, "r");
  if (!f)
    return;
  size_t k = fread(buf, 1, sizeof buf - 1, f);
  fclose(f);
  buf[k] = 0;
  char *l = strchr(buf, '('), *r = strrchr(buf, ')');
  if (!l || !r)
    return;
  proc *p = &s->p[s->n];
  memset(p, 0, sizeof *p);
  p->pid = pid;
  snprintf(p->comm, sizeof p->comm, "%.*s", (int)(r - l - 1), l + 1);
  unsigned long ut = 0, st = 0;
  long rss = 0;
  sscanf(r + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld", &ut, &st,
         &rss);
  p->cpu = (double)(ut + st) / sysconf(_SC_CLK_TCK);
  p->rss_kb = rss * (sysconf(_SC_PAGESIZE) / 1024);
  if (with_pss) {
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    if ((f = fopen(path, "r"))) {
      while (fgets(buf, sizeof buf, f))
        if (sscanf(buf, "Pss: %ld", &p->pss_kb) == 1)
          break;
      fclose(f);
    }
  }
  s->n++;
  s->cpu += p->cpu;
  s->rss_kb += p->rss_kb;
  s->pss_kb += p->pss_kb;
}

static void read_tree(sample *s, watch *w, int with_pss) {
  static int pid[65536], ppid[65536];
  int n = 0;
  DIR *d = opendir("/proc");
  struct dirent *e;
  while (d && (e = readdir(d)) && n < 65536) {
    if (!isdigit((unsigned char)e->d_name[0]))
      continue;
    char path[64], buf[512];
    snprintf(path, sizeof path, "/proc/%.20s/stat", e->d_name);
    FILE *f = fopen(path, "r");
    if (!f)
      continue;
    size_t k = fread(buf, 1, sizeof buf - 1, f);
    fclose(f);
    buf[k] = 0;
    char *r = strrchr(buf, ')');
    if (!r)
      continue;
    pid[n] = atoi(e->d_name);
    ppid[n] = 0;
    sscanf(r + 2, "%*c %d", &ppid[n]);
    n++;
  }
  if (d)
    closedir(d);
  int q[MAXP * 4], qn = 0;
  for (int i = 0; i < w->nr; i++)
    q[qn++] = w->roots[i];
  for (int h = 0; h < qn; h++) {
    read_proc(s, q[h], with_pss);
    for (int i = 0; i < n && qn < MAXP * 4; i++)
      if (ppid[i] == q[h])
        q[qn++] = pid[i];
  }
}

void take(sample *s, watch *w, int with_pss) {
  memset(s, 0, sizeof *s);
  for (int i = 0; i < w->np; i++)
    read_proc(s, w->pids[i], with_pss);
  if (w->nr)
    read_tree(s, w, with_pss);
}

/* CPU used between two samples (a process that is new counts from 0) */
double cpu_diff(sample *a, sample *b) {
  double t = 0;
  for (int i = 0; i < b->n; i++) {
    double o = 0;
    for (int j = 0; j < a->n; j++)
      if (a->p[j].pid == b->p[i].pid)
        o = a->p[j].cpu;
    t += b->p[i].cpu - o;
  }
  return t;
}

int add_list(int *a, int n, int max, const char *v) {
  while (*v && n < max) {
    a[n++] = atoi(v);
    v += strspn(v, "0123456789");
    if (*v)
      v++;
  }
  return n;
}

void procs_json(sample *a, sample *b, const char *key) {
  printf(",\"%s\":[", key);
  for (int i = 0; i < b->n; i++) {
    double o = 0;
    for (int j = 0; j < a->n; j++)
      if (a->p[j].pid == b->p[i].pid)
        o = a->p[j].cpu;
    printf("%s{\"pid\":%d,\"comm\":\"%s\",\"cpu_s\":%.2f,\"rss_kb\":%ld,\"pss_kb\":%ld}", i ? "," : "", b->p[i].pid,
           b->p[i].comm, b->p[i].cpu - o, b->p[i].rss_kb, b->p[i].pss_kb);
  }
  printf("]");
}

double machine_busy(void) { /* CPU seconds all processes have used, steal included */
  unsigned long long u = 0, n = 0, y = 0, id, io, ir = 0, so = 0, stl = 0;
  FILE *f = fopen("/proc/stat", "r");
  if (!f)
    return 0;
  if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &u, &n, &y, &id, &io, &ir, &so, &stl) != 8)
    u = 0;
  fclose(f);
  return (double)(u + n + y + ir + so + stl) / (double)sysconf(_SC_CLK_TCK);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

double spin_ms(void) { /* a fixed piece of work: tells how fast the machine is just now */
  uint64_t t = now_ns(), best = ~0ull, x = 1;
  for (int r = 0; r < 5; r++) {
    t = now_ns();
    for (int i = 0; i < 2000000; i++) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
    uint64_t d = now_ns() - t;
    if (d < best)
      best = d;
  }
  return x ? (double)best / 1e6 : 0;
}

double self_cpu(void) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return (double)r.ru_utime.tv_sec + (double)r.ru_utime.tv_usec / 1e6 + (double)r.ru_stime.tv_sec +
         (double)r.ru_stime.tv_usec / 1e6;
}
