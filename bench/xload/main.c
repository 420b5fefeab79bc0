/* The phases of a run: log in, set up, traffic, report, leave. */
#include "xload.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

sess *S;
flow *F;
int nflow;
uint32_t *muc_last;
int n_ready, n_inflight, n_started, n_dead, n_reg_ok, n_reg_conf, n_joined, n_resuming;
char first_err[200];
uint32_t run_id;
hist h_lat, h_lag, h_login, h_resume;
counters cnt;
uint64_t t_begin, t_send0, t_meas, t_send_end;
int phase_send, timed_out, leaving;
double iv_ns;
volatile sig_atomic_t sig_stop;

static watch w_srv, w_aux;
static phases srv, aux;
static figures fig;

uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

void die(const char *f, ...) {
  va_list a;
  va_start(a, f);
  fprintf(stderr, "xload: ");
  vfprintf(stderr, f, a);
  fputc('\n', stderr);
  va_end(a);
  exit(2);
}

void note_err(const char *f, ...) {
  if (first_err[0])
    return;
  va_list a;
  va_start(a, f);
  vsnprintf(first_err, sizeof first_err, f, a);
  va_end(a);
  for (char *p = first_err; *p; p++)
    if (*p == '"' || *p == '\\' || (unsigned char)*p < 32)
      *p = '\'';
}

static void on_sig(int x) {
  (void)x;
  sig_stop = 1;
}

/* ------------------------------------------------------------------ the phases */
static void log_in(void) {
  static sample after, after_aux;
  double my = self_cpu();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(opt.logto * 1e9);
  while (!sig_stop && n_ready + n_dead < opt.n && now_ns() < end) {
    while (n_inflight < opt.conc && n_started < opt.n)
      start_sess(&S[n_started++]);
    flush_dirty();
    turn(20000000);
    if (n_dead > 20 && n_dead > n_ready)
      break;
  }
  fig.login_s = (double)(now_ns() - t0) / 1e9;
  fig.login_ok = n_ready;
  fig.login_failed = n_dead;
  take(&after, &w_srv, 0);
  take(&after_aux, &w_aux, 0);
  fig.login_cpu = cpu_diff(&srv.start, &after);
  fig.login_aux_cpu = cpu_diff(&aux.start, &after_aux);
  fig.login_my_cpu = self_cpu() - my;
  if (!opt.quiet)
    fprintf(stderr, "logged in %d/%d in %.2f s (%.0f/s), failed %d %s\n", n_ready, opt.n, fig.login_s,
            n_ready / fig.login_s, n_dead, first_err);
  if (opt.scram_cache && opt.sasl != SASL_PLAIN)
    scram_cache_save(opt.scram_cache, opt.pass);
  run_for(opt.settle);
  fig.usable = fig.login_ok >= 1 && (opt.mode == M_IDLE || opt.mode == M_REG || fig.login_ok == opt.n);
}

static void new_flows(int n) {
  nflow = n;
  F = calloc((size_t)n, sizeof *F);
  if (!F)
    die("memory");
}

static void set_up_muc(void) {
  int per = opt.n / opt.rooms, snd = opt.senders > 0 && opt.senders < per ? opt.senders : per;
  new_flows(snd * opt.rooms);
  muc_last = calloc((size_t)opt.n * (size_t)nflow, 4);
  if (!muc_last)
    die("memory");
  for (int i = 0; i < nflow; i++) {
    F[i].room = (uint32_t)(i % opt.rooms);
    F[i].src = (uint32_t)i;
  }
  /* session i sits in room i % rooms; joins are made in order, 8 in flight (the first of each room alone) */
  int target = per * opt.rooms, asked = 0;
  uint64_t end = now_ns() + (uint64_t)(opt.logto * 1e9);
  while (!sig_stop && n_joined < target && now_ns() < end && n_dead == fig.login_failed) {
    int lim = n_joined < opt.rooms ? opt.rooms : n_joined + 8;
    for (; asked < target && asked < lim; asked++) {
      char b[700];
      int n = snprintf(b, sizeof b,
                       "<presence to='%s%d@%s/%s%d'><x xmlns='http://jabber.org/protocol/muc'><history "
                       "maxstanzas='0'/></x></presence>",
                       opt.room, asked % opt.rooms, opt.mucdom, opt.prefix, asked);
      put_stanza(&S[asked], b, (size_t)n);
    }
    flush_dirty();
    turn(20000000);
  }
  if (n_joined < target) {
    fig.usable = 0;
    note_err("only %d of %d joined", n_joined, target);
  }
  run_for(opt.settle);
}

static void set_up_chat(void) {
  int pairs = opt.n / 2;
  new_flows(opt.bidi ? pairs * 2 : pairs);
  for (int i = 0; i < nflow; i++) {
    int k = i % pairs, r = i / pairs;
    F[i].src = (uint32_t)(2 * k + r);
    F[i].dst = (uint32_t)(2 * k + 1 - r);
  }
}

static void subscribe(sess *from, sess *to) {
  char b[400];
  int n = snprintf(b, sizeof b, "<presence type='subscribe' to='%s%d@%s'/>", opt.prefix, uidx(to), opt.domain);
  put_stanza(from, b, (size_t)n);
}

static void set_up_presence(void) { /* ring: i befriends i+1..i+half; both ask, both say yes */
  int half = opt.contacts / 2;
  new_flows(opt.n);
  for (int i = 0; i < nflow; i++)
    F[i].src = (uint32_t)i;
  if (!opt.setup)
    return;
  for (int k = 1; k <= half && !sig_stop; k++)
    for (int i = 0; i < opt.n; i++) {
      int j = (i + k) % opt.n;
      subscribe(&S[i], &S[j]);
      subscribe(&S[j], &S[i]);
      if (i % 64 == 63) {
        flush_dirty();
        turn(0);
        turn(0);
      }
    }
  uint64_t end = now_ns() + 60 * NS, tot = 0;
  while (!sig_stop && now_ns() < end) {
    flush_dirty();
    turn(50000000);
    tot = 0;
    for (int i = 0; i < opt.n; i++)
      tot += S[i].subs;
    if (tot >= (uint64_t)opt.n * (uint64_t)half * 2)
      break;
  }
  if (!opt.quiet)
    fprintf(stderr, "subscriptions confirmed: %llu of %d\n", (unsigned long long)tot, opt.n * half * 2);
  run_for(opt.settle);
}

static void set_up(void) {
  if (!fig.usable)
    return;
  if (opt.mode == M_MUC)
    set_up_muc();
  else if (opt.mode == M_CHAT)
    set_up_chat();
  else if (opt.mode == M_PRES)
    set_up_presence();
  else if (opt.mode == M_IDLE) {
    resume_drops(1);
    run_for(opt.hold);
    resume_drops(0);
    uint64_t end = now_ns() + (uint64_t)(opt.drain * 1e9);
    while (!sig_stop && n_resuming && now_ns() < end)
      turn(20000000);
  }
}

static void start_window(uint64_t *tm, double *cpu0, double *busy0) { /* the warm-up is over */
  take(&srv.win0, &w_srv, 0);
  take(&aux.win0, &w_aux, 0);
  *cpu0 = self_cpu();
  *busy0 = machine_busy();
  *tm = t_meas = now_ns();
  cnt.win_del = cnt.win_sent = 0;
  memset(&h_lag, 0, sizeof h_lag);
  memset(&h_lat, 0, sizeof h_lat);
}

static uint64_t send_due(uint64_t now) { /* open loop: what is due by now; time until the next */
  uint64_t want = (uint64_t)((double)(now - t_send0) / iv_ns);
  for (int budget = 0; next_idx <= want && budget < 20000; next_idx++, budget++) {
    flow *f = &F[next_idx % (uint64_t)nflow];
    f->due++;
    flow_push(f, now);
  }
  flush_dirty();
  uint64_t next = t_send0 + (uint64_t)((double)next_idx * iv_ns), wait;
  now = now_ns();
  wait = next > now ? next - now : 0;
  if (wait > 10000000)
    wait = 10000000;
  return wait && wait < 50000 ? 50000 : wait;
}

static void refill_stalled(
    uint64_t now) { /* closed loop: flows without progress for 2 s (their messages count as lost) */
  for (int i = 0; i < nflow; i++) {
    flow *f = &F[i];
    if (S[f->src].st != S_READY || (opt.mode == M_CHAT && S[f->dst].st != S_READY))
      f->last_ns = now; /* being resumed */
    if (now - f->last_ns <= 2 * NS || f->sent <= f->got)
      continue;
    f->last_ns = now;
    f->outst = 0;
    for (int k = 0; k < opt.window; k++)
      flow_send(f, now, now);
  }
  flush_dirty();
}

static void traffic(void) {
  double spin = spin_ms(), cpu0 = 0, busy0 = 0;
  uint64_t now = now_ns(), tm = 0, check = now + NS;
  t_send0 = now;
  t_meas = now + (uint64_t)(opt.warm * 1e9);
  t_send_end = t_meas + (uint64_t)(opt.dur * 1e9);
  phase_send = 1;
  iv_ns = opt.rate > 0 ? 1e9 / opt.rate : 0;
  for (int i = 0; i < nflow; i++)
    F[i].last_ns = now;
  if (opt.rate <= 0)
    for (int k = 0; k < opt.window; k++)
      for (int i = 0; i < nflow; i++)
        if (F[i].outst <= k)
          flow_send(&F[i], now, now);
  flush_dirty();
  resume_drops(1);
  while (!sig_stop && (now = now_ns()) < t_send_end && n_dead < opt.n) {
    uint64_t wait = 10000000;
    if (!tm && now >= t_meas)
      start_window(&tm, &cpu0, &busy0);
    if (opt.rate > 0)
      wait = send_due(now);
    else if (now > check) {
      check = now + NS;
      refill_stalled(now);
    }
    if (!tm && t_meas > now && wait > t_meas - now)
      wait = t_meas - now;
    turn(wait);
  }
  resume_drops(0);
  phase_send = 0;
  take(&srv.win1, &w_srv, 0);
  take(&aux.win1, &w_aux, 0);
  fig.win_s = tm ? (double)(now_ns() - tm) / 1e9 : 0;
  fig.scpu = cpu_diff(&srv.win0, &srv.win1);
  fig.acpu = cpu_diff(&aux.win0, &aux.win1);
  fig.mycpu = self_cpu() - cpu0;
  fig.other = fig.win_s > 0 ? (machine_busy() - busy0 - fig.scpu - fig.acpu - fig.mycpu) / fig.win_s : 0;
  fig.spin = spin_ms();
  if (spin < fig.spin)
    fig.spin = spin;
  uint64_t fan = opt.mode == M_MUC ? (uint64_t)(opt.n / opt.rooms) : 1, end = now_ns() + (uint64_t)(opt.drain * 1e9);
  while (!sig_stop && now_ns() < end && (opt.mode == M_PRES || n_resuming || cnt.del + cnt.bounce < cnt.sent * fan))
    turn(20000000);
}

static void leave(void) { /* close the streams, wait at most 2 s */
  leaving = 1;
  for (int i = 0; i < opt.n; i++)
    if (S[i].st == S_READY)
      putf(&S[i], S[i].ws ? "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>" : "</stream:stream>");
  flush_dirty();
  sig_stop = 0;
  t_begin = now_ns();
  uint64_t e = now_ns() + 2 * NS;
  while (n_ready > 0 && now_ns() < e && !sig_stop)
    turn(50000000);
}

int main(int argc, char **argv) {
  parse_options(argc, argv, &w_srv, &w_aux);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, on_sig);
  signal(SIGTERM, on_sig);
  struct timespec rt;
  clock_gettime(CLOCK_REALTIME, &rt);
  run_id = (uint32_t)(rt.tv_nsec ^ rt.tv_sec ^ ((uint32_t)getpid() << 8)) & 0xffffff;
  if (opt.scram_cache)
    scram_cache_load(opt.scram_cache, opt.pass);
  conn_init();
  t_begin = now_ns();
  take(&srv.start, &w_srv, 1);
  take(&aux.start, &w_aux, 1);
  log_in();
  set_up();
  take(&srv.loggedin, &w_srv, 1);
  take(&aux.loggedin, &w_aux, 1);
  if (fig.usable && nflow)
    traffic();
  take(&srv.end, &w_srv, 1);
  take(&aux.end, &w_aux, 1);
  int status = report(&fig, &srv, &aux);
  leave();
  return status;
}
