/* The command line. */
#include "xload.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

const char *mode_names[5] = {"idle", "chat", "muc", "presence", "register"};
options opt = {.n = 100,
               .body = 100,
               .window = 10,
               .conc = 32,
               .srcips = 1,
               .rooms = 1,
               .contacts = 10,
               .dur = 10,
               .warm = 2,
               .drain = 5,
               .hold = 3,
               .settle = 1,
               .max = 300,
               .logto = 120,
               .resume_timeout = 60,
               .domain = "localhost",
               .pass = "secret",
               .prefix = "u",
               .room = "bench",
               .label = "",
               .res = "xl"};

static void usage(void) {
  puts(
      "usage: xload MODE [options]      MODE: idle | chat | muc | presence | register\n"
      " target   --host IP(127.0.0.1) --port P[,P](5222) | --targets IP:P,IP:P   --domain D(localhost)\n"
      "          --prefix u --pass secret --resource xl  -n N sessions (100)  --offset K (users uK..)\n"
      "          --src-ips K (spread over 127.0.0.2..)  --starttls | --direct-tls | --websocket (RFC 7395)\n"
      " peer     --peer IP:P --peer-domain D: u1, u3, ... sign in there (chat, idle, register)\n"
      " login    --sasl plain|scram-sha-1|scram-sha-256|scram-sha-512  --scram-cache FILE\n"
      "          --conc C logins in flight (32)  --register (XEP-0077 first)  --login-timeout s(120)\n"
      "          --sm [--sm-r K: <r/> each K stanzas]  --roster (fetch it)  --no-xmldecl\n"
      "          --no-ping (ready at bind, not at ping reply)\n"
      " resume   --sm-resume (chat, muc, idle)  --drop-rate R cuts/s in all  --drop-how fin|rst|hang\n"
      "          --resume-delay s(0)  --resume-timeout s(60)\n"
      " chat     --window W per flow (10, closed loop) | --rate R msg/s in all (open loop)\n"
      "          --body B(100)  --bidi  --full-jid\n"
      " muc      --rooms G(1) (N occupants split over G)  --senders S per room (all)  --room bench\n"
      "          --muc-domain (conference.D)\n"
      " presence --contacts K(10)  --setup (make the mutual subscriptions first)  --rate R toggles/s\n"
      " time     --duration s(10)  --warmup s(2)  --drain s(5)  --settle s(1)  --hold s(3, idle)\n"
      "          --max-time s(300, whole run)\n"
      " server   --server-pids A,B  --server-pgrep-root PID[,PID]  and --aux-pids, --aux-pgrep-root\n"
      "          for what is counted apart (the database)\n"
      " output   --json (one line)  --label TEXT  --quiet  --trace (print session 0's stream)");
  exit(2);
}

static void set_address(struct sockaddr_in *a, const char *host, const char *port) {
  int p = atoi(port);
  a->sin_family = AF_INET;
  a->sin_port = htons((uint16_t)p);
  if (inet_pton(AF_INET, host, &a->sin_addr) != 1)
    die("'%s' is not an IPv4 address", host);
  if (p < 1 || p > 65535)
    die("'%s' is not a port", port);
}

static void add_target(const char *host, const char *port) {
  if (opt.ntargets == MAX_TARGETS)
    die("at most %d targets", MAX_TARGETS);
  set_address(&opt.target[opt.ntargets++], host, port);
}

static void set_peer(const char *peer) {
  char *copy = strdup(peer), *colon = strrchr(copy, ':');
  if (!colon)
    die("--peer wants IP:PORT");
  *colon = 0;
  set_address(&opt.peer, copy, colon + 1);
  free(copy);
}

static void set_targets(const char *host, const char *ports, const char *targets) {
  char *list = strdup(targets ? targets : ports), *save = NULL;
  for (char *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
    char *colon = strrchr(w, ':');
    if (targets && !colon)
      die("--targets wants IP:PORT,IP:PORT");
    if (targets)
      *colon = 0;
    add_target(targets ? w : host, targets ? colon + 1 : w);
  }
  free(list);
  if (!opt.ntargets)
    die("no target");
}

static int choice(const char *name, const char *value, const char *const *names, int n) {
  for (int i = 0; i < n; i++)
    if (!strcasecmp(value, names[i]))
      return i;
  die("--%s: unknown value '%s'", name, value);
}

static void read_options(int argc, char **argv, watch *w_srv, watch *w_aux) {
  static const char *hows[] = {"fin", "rst", "hang"}, *host = "127.0.0.1", *ports = "5222", *targets, *peer, *sasl = "plain",
                    *how = "fin";

  const struct {
    const char *name;
    char kind; /* f flag, i integer, d number, s text, P process ids, R roots of process trees */
    void *p;
  } t[] = {{"host", 's', &host},
           {"port", 's', &ports},
           {"targets", 's', &targets},
           {"domain", 's', &opt.domain},
           {"peer", 's', &peer},
           {"peer-domain", 's', &opt.peer_domain},
           {"prefix", 's', &opt.prefix},
           {"pass", 's', &opt.pass},
           {"resource", 's', &opt.res},
           {"sessions", 'i', &opt.n},
           {"offset", 'i', &opt.offset},
           {"src-ips", 'i', &opt.srcips},
           {"starttls", 'f', &opt.starttls},
           {"direct-tls", 'f', &opt.direct},
           {"websocket", 'f', &opt.websocket},
           {"conc", 'i', &opt.conc},
           {"sasl", 's', &sasl},
           {"scram-cache", 's', &opt.scram_cache},
           {"register", 'f', &opt.reg},
           {"sm", 'f', &opt.sm},
           {"sm-r", 'i', &opt.smr},
           {"sm-resume", 'f', &opt.smresume},
           {"drop-rate", 'd', &opt.drop_rate},
           {"drop-how", 's', &how},
           {"resume-delay", 'd', &opt.resume_delay},
           {"resume-timeout", 'd', &opt.resume_timeout},
           {"roster", 'f', &opt.roster},
           {"no-ping", 'f', &opt.noping},
           {"login-timeout", 'd', &opt.logto},
           {"window", 'i', &opt.window},
           {"rate", 'd', &opt.rate},
           {"body", 'i', &opt.body},
           {"bidi", 'f', &opt.bidi},
           {"full-jid", 'f', &opt.full},
           {"rooms", 'i', &opt.rooms},
           {"senders", 'i', &opt.senders},
           {"muc-domain", 's', &opt.mucdom},
           {"room", 's', &opt.room},
           {"contacts", 'i', &opt.contacts},
           {"setup", 'f', &opt.setup},
           {"duration", 'd', &opt.dur},
           {"warmup", 'd', &opt.warm},
           {"drain", 'd', &opt.drain},
           {"settle", 'd', &opt.settle},
           {"hold", 'd', &opt.hold},
           {"max-time", 'd', &opt.max},
           {"server-pids", 'P', w_srv},
           {"server-pgrep-root", 'R', w_srv},
           {"aux-pids", 'P', w_aux},
           {"aux-pgrep-root", 'R', w_aux},
           {"json", 'f', &opt.json},
           {"label", 's', &opt.label},
           {"quiet", 'f', &opt.quiet},
           {"no-xmldecl", 'f', &opt.nodecl},
           {"trace", 'f', &opt.trace}};

  enum { NOPT = sizeof t / sizeof *t };

  static const char *const shorts[][2] = {{"n", "sessions"}, {"p", "port"}, {"d", "domain"},  {"w", "window"},
                                          {"r", "rate"},     {"b", "body"}, {"t", "duration"}};
  struct option lo[NOPT + 1];
  memset(lo, 0, sizeof lo);
  for (int i = 0; i < NOPT; i++)
    lo[i] = (struct option){t[i].name, t[i].kind != 'f', NULL, 256 + i};
  int c;
  optind = 2;
  while ((c = getopt_long(argc, argv, "n:p:d:w:r:b:t:", lo, NULL)) != -1) {
    int i = c - 256;
    for (size_t k = 0; i < 0 && k < sizeof shorts / sizeof *shorts; k++)
      if (shorts[k][0][0] == c)
        for (int j = 0; j < NOPT; j++)
          if (!strcmp(t[j].name, shorts[k][1]))
            i = j;
    if (i < 0)
      usage();
    watch *w = t[i].p;
    switch (t[i].kind) {
      case 'f': *(int *)t[i].p = 1; break;
      case 'i': *(int *)t[i].p = atoi(optarg); break;
      case 'd': *(double *)t[i].p = atof(optarg); break;
      case 's': *(const char **)t[i].p = optarg; break;
      case 'P': w->np = add_list(w->pids, w->np, MAXP, optarg); break;
      default: w->nr = add_list(w->roots, w->nr, 64, optarg);
    }
  }
  if (optind < argc)
    die("what is '%s'?", argv[optind]);
  set_targets(host, ports, targets);
  if (!peer != !opt.peer_domain)
    die("--peer and --peer-domain go together");
  if (peer)
    set_peer(peer);
  opt.sasl = choice("sasl", sasl, sasl_names, 4);
  opt.drop_how = choice("drop-how", how, hows, 3);
}

static void check_options(void) {
  static char md[300];
  if (opt.n < 1)
    die("-n must be positive");
  if (opt.mode == M_CHAT && opt.n < 2)
    die("chat wants at least 2 sessions");
  if (opt.rooms < 1 || opt.rooms > opt.n)
    die("--rooms: from 1 to the number of sessions");
  if (opt.body < 1 || opt.body + 300 > OBUF - 16)
    die("--body at most %d", OBUF - 316);
  if (strlen(opt.pass) > 100 || strlen(opt.prefix) > 100)
    die("--pass, --prefix: at most 100 bytes");
#ifdef NOTLS
  if (opt.starttls || opt.direct)
    die("--starttls and --direct-tls: built without OpenSSL (NOTLS=1)");
  if (opt.sasl != SASL_PLAIN)
    die("--sasl %s: built without OpenSSL (NOTLS=1), only plain is there", sasl_names[opt.sasl]);
#endif
  if (opt.websocket && (opt.starttls || opt.smresume))
    die("--websocket: neither --starttls nor --sm-resume");
  if (strpbrk(opt.prefix, ",=&<>'\""))
    die("--prefix: no ,=&<>'\" please");
  if (opt.mode == M_REG)
    opt.reg = 1;
  if (opt.mode == M_PRES && opt.rate <= 0)
    opt.rate = 100;
  if (opt.drop_rate > 0 && !opt.smresume)
    die("--drop-rate wants --sm-resume");
  if (opt.smresume && opt.mode != M_CHAT && opt.mode != M_MUC && opt.mode != M_IDLE)
    die("--sm-resume: chat, muc or idle");
  if (opt.peer_domain && opt.mode != M_CHAT && opt.mode != M_IDLE && opt.mode != M_REG)
    die("--peer: chat, idle or register");
  if (opt.smresume) {
    opt.sm = 1;
    if (opt.smr <= 0)
      opt.smr = 5;
  }
  if (!opt.mucdom) {
    snprintf(md, sizeof md, "conference.%s", opt.domain);
    opt.mucdom = md;
  }
  struct rlimit rl;
  getrlimit(RLIMIT_NOFILE, &rl);
  rl.rlim_cur = rl.rlim_max;
  setrlimit(RLIMIT_NOFILE, &rl);
  if ((rlim_t)opt.n + 20 > rl.rlim_max)
    die("%d sessions need more than the %lu open files allowed", opt.n, (unsigned long)rl.rlim_max);
}

void parse_options(int argc, char **argv, watch *w_srv, watch *w_aux) {
  if (argc < 2)
    usage();
  opt.mode = -1;
  for (int i = 0; i < 5; i++)
    if (!strcmp(argv[1], mode_names[i]))
      opt.mode = i;
  if (opt.mode < 0)
    usage();
  read_options(argc, argv, w_srv, w_aux);
  check_options();
}
