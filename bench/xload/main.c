/* Options and the phases of a run: log in, set up, traffic, report, leave. */
#include "xload.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

const char *mode_names[5] = {"idle", "chat", "muc", "presence", "register"};
options opt = {.n = 100, .body = 100, .window = 10, .conc = 32, .srcips = 1, .rooms = 1, .contacts = 10, .dur = 10, .warm = 2,
               .drain = 5, .hold = 3, .settle = 1, .max = 300, .logto = 120, .resume_timeout = 60, .domain = "localhost",
               .pass = "secret", .prefix = "u", .room = "bench", .label = "", .res = "xl"};
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
  if (first_err[0]) return;
  va_list a;
  va_start(a, f);
  vsnprintf(first_err, sizeof first_err, f, a);
  va_end(a);
  for (char *p = first_err; *p; p++)
    if (*p == '"' || *p == '\\' || (unsigned char)*p < 32) *p = '\'';
}
static void on_sig(int x) { (void)x; sig_stop = 1; }

/* ------------------------------------------------------------------ options */
static void usage(void) {
  puts("usage: xload MODE [options]      MODE: idle | chat | muc | presence | register\n"
       " target   --host IP(127.0.0.1) --port P[,P](5222) | --targets IP:P,IP:P   --domain D(localhost) --prefix u --pass secret\n"
       "          --resource xl  -n N sessions (100)  --offset K (users uK..)  --src-ips K (spread over 127.0.0.2..)\n"
       "          --starttls | --direct-tls\n"
       " login    --sasl plain|scram-sha-1|scram-sha-256|scram-sha-512  --scram-cache FILE  --conc C logins in flight (32)\n"
       "          --register (XEP-0077 first)  --sm [--sm-r K: <r/> each K stanzas]  --no-xmldecl\n"
       "          --roster (fetch it)  --no-ping (ready at bind, not at ping reply)  --login-timeout s(120)\n"
       " resume   --sm-resume (chat, muc, idle)  --drop-rate R cuts/s in all  --drop-how fin|rst|hang  --resume-delay s(0)\n"
       "          --resume-timeout s(60)\n"
       " chat     --window W per flow (10, closed loop) | --rate R msg/s in all (open loop)  --body B(100)  --bidi  --full-jid\n"
       " muc      --rooms G(1) (N occupants split over G)  --senders S per room (all)  --muc-domain (conference.D)  --room bench\n"
       " presence --contacts K(10)  --setup (make the mutual subscriptions first)  --rate R toggles/s\n"
       " time     --duration s(10)  --warmup s(2)  --drain s(5)  --settle s(1)  --hold s(3, idle)  --max-time s(300, whole run)\n"
       " server   --server-pids A,B  --server-pgrep-root PID[,PID]  --aux-pids ...  --aux-pgrep-root PID[,PID] (e.g. the database)\n"
       " output   --json (one line)  --label TEXT  --quiet  --trace (print session 0's stream)");
  exit(2);
}
static void add_target(const char *host, const char *port) {
  struct sockaddr_in *a = &opt.target[opt.ntargets];
  int p = atoi(port);
  if (opt.ntargets == MAX_TARGETS) die("at most %d targets", MAX_TARGETS);
  a->sin_family = AF_INET;
  a->sin_port = htons((uint16_t)p);
  if (inet_pton(AF_INET, host, &a->sin_addr) != 1) die("'%s' is not an IPv4 address", host);
  if (p < 1 || p > 65535) die("'%s' is not a port", port);
  opt.ntargets++;
}
static void set_targets(const char *host, const char *ports, const char *targets) {
  char *list = strdup(targets ? targets : ports), *save = NULL;
  for (char *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
    char *colon = strrchr(w, ':');
    if (targets && !colon) die("--targets wants IP:PORT,IP:PORT");
    if (targets) *colon = 0;
    add_target(targets ? w : host, targets ? colon + 1 : w);
  }
  free(list);
  if (!opt.ntargets) die("no target");
}
static int choice(const char *name, const char *value, const char *const *names, int n) {
  for (int i = 0; i < n; i++)
    if (!strcasecmp(value, names[i])) return i;
  die("--%s: unknown value '%s'", name, value);
}
static void parse_options(int argc, char **argv) {
  static const char *hows[] = {"fin", "rst", "hang"}, *host = "127.0.0.1", *ports = "5222", *targets, *sasl = "plain", *how = "fin";
  static const struct {
    const char *name;
    char kind; /* f flag, i integer, d number, s text, P process ids, R roots of process trees */
    void *p;
  } t[] = {
      {"host", 's', &host}, {"port", 's', &ports}, {"targets", 's', &targets}, {"domain", 's', &opt.domain}, {"prefix", 's', &opt.prefix},
      {"pass", 's', &opt.pass}, {"resource", 's', &opt.res}, {"sessions", 'i', &opt.n}, {"offset", 'i', &opt.offset},
      {"src-ips", 'i', &opt.srcips}, {"starttls", 'f', &opt.starttls}, {"direct-tls", 'f', &opt.direct}, {"conc", 'i', &opt.conc},
      {"sasl", 's', &sasl}, {"scram-cache", 's', &opt.scram_cache}, {"register", 'f', &opt.reg}, {"sm", 'f', &opt.sm},
      {"sm-r", 'i', &opt.smr}, {"sm-resume", 'f', &opt.smresume}, {"drop-rate", 'd', &opt.drop_rate}, {"drop-how", 's', &how},
      {"resume-delay", 'd', &opt.resume_delay}, {"resume-timeout", 'd', &opt.resume_timeout}, {"roster", 'f', &opt.roster},
      {"no-ping", 'f', &opt.noping}, {"login-timeout", 'd', &opt.logto}, {"window", 'i', &opt.window}, {"rate", 'd', &opt.rate},
      {"body", 'i', &opt.body}, {"bidi", 'f', &opt.bidi}, {"full-jid", 'f', &opt.full}, {"rooms", 'i', &opt.rooms},
      {"senders", 'i', &opt.senders}, {"muc-domain", 's', &opt.mucdom}, {"room", 's', &opt.room}, {"contacts", 'i', &opt.contacts},
      {"setup", 'f', &opt.setup}, {"duration", 'd', &opt.dur}, {"warmup", 'd', &opt.warm}, {"drain", 'd', &opt.drain},
      {"settle", 'd', &opt.settle}, {"hold", 'd', &opt.hold}, {"max-time", 'd', &opt.max}, {"server-pids", 'P', &w_srv},
      {"server-pgrep-root", 'R', &w_srv}, {"aux-pids", 'P', &w_aux}, {"aux-pgrep-root", 'R', &w_aux}, {"json", 'f', &opt.json},
      {"label", 's', &opt.label}, {"quiet", 'f', &opt.quiet}, {"no-xmldecl", 'f', &opt.nodecl}, {"trace", 'f', &opt.trace}};
  enum { NOPT = sizeof t / sizeof *t };
  static const char *const shorts[][2] = {{"n", "sessions"}, {"p", "port"}, {"d", "domain"}, {"w", "window"}, {"r", "rate"}, {"b", "body"}, {"t", "duration"}};
  struct option lo[NOPT + 1];
  memset(lo, 0, sizeof lo);
  for (int i = 0; i < NOPT; i++) lo[i] = (struct option){t[i].name, t[i].kind != 'f', NULL, 256 + i};
  int c;
  optind = 2;
  while ((c = getopt_long(argc, argv, "n:p:d:w:r:b:t:", lo, NULL)) != -1) {
    int i = c - 256;
    for (size_t k = 0; i < 0 && k < sizeof shorts / sizeof *shorts; k++)
      if (shorts[k][0][0] == c)
        for (int j = 0; j < NOPT; j++) if (!strcmp(t[j].name, shorts[k][1])) i = j;
    if (i < 0) usage();
    watch *w = t[i].p;
    switch (t[i].kind) {
      case 'f': *(int *)t[i].p = 1; break;
      case 'i': *(int *)t[i].p = atoi(optarg); break;
      case 'd': *(double *)t[i].p = atof(optarg); break;
      case 's': *(const char **)t[i].p = optarg; break;
      case 'P': w->np = add_list(w->pids, w->np, MAXP, optarg); break;
      default: w->nr = add_list(w->roots, w->nr, 16, optarg);
    }
  }
  if (optind < argc) die("what is '%s'?", argv[optind]);
  set_targets(host, ports, targets);
  opt.sasl = choice("sasl", sasl, sasl_names, 4);
  opt.drop_how = choice("drop-how", how, hows, 3);
}
static void check_options(void) {
  static char md[300];
  if (opt.n < 1) die("-n must be positive");
  if (opt.mode == M_CHAT && opt.n < 2) die("chat wants at least 2 sessions");
  if (opt.rooms < 1 || opt.rooms > opt.n) die("--rooms: from 1 to the number of sessions");
  if (opt.body < 1 || opt.body + 300 > OBUF - 16) die("--body at most %d", OBUF - 316);
  if (strlen(opt.pass) > 100 || strlen(opt.prefix) > 100) die("--pass, --prefix: at most 100 bytes");
#ifdef NOTLS
  if (opt.starttls || opt.direct) die("--starttls and --direct-tls: built without OpenSSL (NOTLS=1)");
  if (opt.sasl != SASL_PLAIN) die("--sasl %s: built without OpenSSL (NOTLS=1), only plain is there", sasl_names[opt.sasl]);
#endif
  if (strpbrk(opt.prefix, ",=&<>'\"")) die("--prefix: no ,=&<>'\" please");
  if (opt.mode == M_REG) opt.reg = 1;
  if (opt.mode == M_PRES && opt.rate <= 0) opt.rate = 100;
  if (opt.drop_rate > 0 && !opt.smresume) die("--drop-rate wants --sm-resume");
  if (opt.smresume && opt.mode != M_CHAT && opt.mode != M_MUC && opt.mode != M_IDLE) die("--sm-resume: chat, muc or idle");
  if (opt.smresume) {
    opt.sm = 1;
    if (opt.smr <= 0) opt.smr = 5;
  }
  if (!opt.mucdom) {
    snprintf(md, sizeof md, "conference.%s", opt.domain);
    opt.mucdom = md;
  }
  struct rlimit rl;
  getrlimit(RLIMIT_NOFILE, &rl);
  rl.rlim_cur = rl.rlim_max;
  setrlimit(RLIMIT_NOFILE, &rl);
  if ((rlim_t)opt.n + 20 > rl.rlim_max) die("%d sessions need more than the %lu open files allowed", opt.n, (unsigned long)rl.rlim_max);
}

/* ------------------------------------------------------------------ the phases */
static void log_in(void) {
  static sample after, after_aux;
  double my = self_cpu();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(opt.logto * 1e9);
  while (!sig_stop && n_ready + n_dead < opt.n && now_ns() < end) {
    while (n_inflight < opt.conc && n_started < opt.n) start_sess(&S[n_started++]);
    flush_dirty();
    turn(20000000);
    if (n_dead > 20 && n_dead > n_ready) break;
  }
  fig.login_s = (double)(now_ns() - t0) / 1e9;
  fig.login_ok = n_ready;
  fig.login_failed = n_dead;
  take(&after, &w_srv, 0);
  take(&after_aux, &w_aux, 0);
  fig.login_cpu = cpu_diff(&srv.start, &after);
  fig.login_aux_cpu = cpu_diff(&aux.start, &after_aux);
  fig.login_my_cpu = self_cpu() - my;
  if (!opt.quiet) fprintf(stderr, "logged in %d/%d in %.2f s (%.0f/s), failed %d %s\n", n_ready, opt.n, fig.login_s, n_ready / fig.login_s, n_dead, first_err);
  if (opt.scram_cache && opt.sasl != SASL_PLAIN) scram_cache_save(opt.scram_cache, opt.pass);
  run_for(opt.settle);
  fig.usable = fig.login_ok >= 1 && (opt.mode == M_IDLE || opt.mode == M_REG || fig.login_ok == opt.n);
}
static void new_flows(int n) {
  nflow = n;
  F = calloc((size_t)n, sizeof *F);
  if (!F) die("memory");
}
static void set_up_muc(void) {
  int per = opt.n / opt.rooms, snd = opt.senders > 0 && opt.senders < per ? opt.senders : per;
  new_flows(snd * opt.rooms);
  muc_last = calloc((size_t)opt.n * (size_t)nflow, 4);
  if (!muc_last) die("memory");
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
                       "<presence to='%s%d@%s/%s%d'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>",
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
  for (int i = 0; i < nflow; i++) F[i].src = (uint32_t)i;
  if (!opt.setup) return;
  for (int k = 1; k <= half && !sig_stop; k++)
    for (int i = 0; i < opt.n; i++) {
      int j = (i + k) % opt.n;
      subscribe(&S[i], &S[j]);
      subscribe(&S[j], &S[i]);
      if (i % 64 == 63) { flush_dirty(); turn(0); turn(0); }
    }
  uint64_t end = now_ns() + 60 * NS, tot = 0;
  while (!sig_stop && now_ns() < end) {
    flush_dirty();
    turn(50000000);
    tot = 0;
    for (int i = 0; i < opt.n; i++) tot += S[i].subs;
    if (tot >= (uint64_t)opt.n * (uint64_t)half * 2) break;
  }
  if (!opt.quiet) fprintf(stderr, "subscriptions confirmed: %llu of %d\n", (unsigned long long)tot, opt.n * half * 2);
  run_for(opt.settle);
}
static void set_up(void) {
  if (!fig.usable) return;
  if (opt.mode == M_MUC) set_up_muc();
  else if (opt.mode == M_CHAT) set_up_chat();
  else if (opt.mode == M_PRES) set_up_presence();
  else if (opt.mode == M_IDLE) {
    resume_drops(1);
    run_for(opt.hold);
    resume_drops(0);
    uint64_t end = now_ns() + (uint64_t)(opt.drain * 1e9);
    while (!sig_stop && n_resuming && now_ns() < end) turn(20000000);
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
  if (wait > 10000000) wait = 10000000;
  return wait && wait < 50000 ? 50000 : wait;
}
static void refill_stalled(uint64_t now) { /* closed loop: flows without progress for 2 s (their messages count as lost) */
  for (int i = 0; i < nflow; i++) {
    flow *f = &F[i];
    if (S[f->src].st != S_READY || (opt.mode == M_CHAT && S[f->dst].st != S_READY)) f->last_ns = now; /* being resumed */
    if (now - f->last_ns <= 2 * NS || f->sent <= f->got) continue;
    f->last_ns = now;
    f->outst = 0;
    for (int k = 0; k < opt.window; k++) flow_send(f, now, now);
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
  for (int i = 0; i < nflow; i++) F[i].last_ns = now;
  if (opt.rate <= 0)
    for (int k = 0; k < opt.window; k++)
      for (int i = 0; i < nflow; i++) if (F[i].outst <= k) flow_send(&F[i], now, now);
  flush_dirty();
  resume_drops(1);
  while (!sig_stop && (now = now_ns()) < t_send_end && n_dead < opt.n) {
    uint64_t wait = 10000000;
    if (!tm && now >= t_meas) start_window(&tm, &cpu0, &busy0);
    if (opt.rate > 0) wait = send_due(now);
    else if (now > check) {
      check = now + NS;
      refill_stalled(now);
    }
    if (!tm && t_meas > now && wait > t_meas - now) wait = t_meas - now;
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
  if (spin < fig.spin) fig.spin = spin;
  uint64_t fan = opt.mode == M_MUC ? (uint64_t)(opt.n / opt.rooms) : 1, end = now_ns() + (uint64_t)(opt.drain * 1e9);
  while (!sig_stop && now_ns() < end && (opt.mode == M_PRES || n_resuming || cnt.del + cnt.bounce < cnt.sent * fan)) turn(20000000);
}
static void leave(void) { /* close the streams, wait at most 2 s */
  leaving = 1;
  for (int i = 0; i < opt.n; i++) if (S[i].st == S_READY) put(&S[i], "</stream:stream>", 16);
  flush_dirty();
  sig_stop = 0;
  t_begin = now_ns();
  uint64_t e = now_ns() + 2 * NS;
  while (n_ready > 0 && now_ns() < e && !sig_stop) turn(50000000);
}

int main(int argc, char **argv) {
  if (argc < 2) usage();
  opt.mode = -1;
  for (int i = 0; i < 5; i++) if (!strcmp(argv[1], mode_names[i])) opt.mode = i;
  if (opt.mode < 0) usage();
  parse_options(argc, argv);
  check_options();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, on_sig);
  signal(SIGTERM, on_sig);
  struct timespec rt;
  clock_gettime(CLOCK_REALTIME, &rt);
  run_id = (uint32_t)(rt.tv_nsec ^ rt.tv_sec ^ ((uint32_t)getpid() << 8)) & 0xffffff;
  if (opt.scram_cache) scram_cache_load(opt.scram_cache, opt.pass);
  conn_init();
  t_begin = now_ns();
  take(&srv.start, &w_srv, 1);
  take(&aux.start, &w_aux, 1);
  log_in();
  set_up();
  take(&srv.loggedin, &w_srv, 1);
  take(&aux.loggedin, &w_aux, 1);
  if (fig.usable && nflow) traffic();
  take(&srv.end, &w_srv, 1);
  take(&aux.end, &w_aux, 1);
  int status = report(&fig, &srv, &aux);
  leave();
  return status;
}
