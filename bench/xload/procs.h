/* What processes cost: CPU, RSS and PSS of a list of processes or of whole process trees, read from /proc. */
#ifndef PROCS_H
#define PROCS_H
#define MAXP 256

typedef struct {
  int pid;
  char comm[20];
  double cpu;
  long rss_kb, pss_kb;
} proc;

typedef struct {
  proc p[MAXP];
  int n;
  double cpu;
  long rss_kb, pss_kb;
} sample;

/* what to watch: single processes, and roots of process trees */
typedef struct {
  int pids[MAXP], np, roots[64], nr;
} watch;

int add_list(int *a, int n, int max, const char *v); /* "12,34" appended to a; the new length */
void take(sample *s, watch *w, int with_pss);
double cpu_diff(sample *a, sample *b); /* CPU seconds used between two samples (a process that is new counts from 0) */
void procs_json(sample *a, sample *b, const char *key);
double machine_busy(void); /* CPU seconds all processes of the machine have used, steal included */
double spin_ms(void);      /* a fixed piece of work: tells how fast the machine is just now */
double self_cpu(void);     /* CPU seconds this process has used */
#endif
