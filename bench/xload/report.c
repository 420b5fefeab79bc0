/* What a run found: one line of JSON, or text. */
#include <stdio.h>

#include "xload.h"

typedef unsigned long long ull;

static double per(double a, double b) {
  return b > 0 ? a / b : 0;
}

static double ms(uint64_t ns) {
  return (double)ns / 1e6;
}

/* MUC: whether every occupant of a room saw the same messages in the same order */
static int same_order(void) {
  for (int i = opt.rooms; i < opt.n / opt.rooms * opt.rooms; i++)
    if (S[i].ordhash != S[i % opt.rooms].ordhash)
      return 0;
  return 1;
}

typedef struct {
  uint64_t expect;
  int64_t lost;
  int bad;
  double us, aus, rss, pss; /* CPU per message of server and aux; KB per session */
} derived;

static void json_traffic(figures *g, derived *d) {
  printf(",\"sent\":%llu,\"expected\":%llu,\"delivered\":%llu,\"lost\":%lld,\"dup\":%llu,\"out_of_order\":%llu",
         (ull)cnt.sent, (ull)d->expect, (ull)cnt.del, (long long)d->lost, (ull)cnt.dup, (ull)cnt.ooo);
  printf(",\"bounced\":%llu,\"foreign\":%llu,\"window_s\":%.3f,\"window_sent\":%llu,\"window_delivered\":%llu",
         (ull)cnt.bounce, (ull)cnt.foreign, g->win_s, (ull)cnt.win_sent, (ull)cnt.win_del);
  printf(",\"sent_per_s\":%.1f,\"delivered_per_s\":%.1f", per((double)cnt.win_sent, g->win_s),
         per((double)cnt.win_del, g->win_s));
  printf(",\"lat_ms\":{\"p50\":%.3f,\"p95\":%.3f,\"p99\":%.3f,\"max\":%.3f,\"mean\":%.3f},\"send_lag_p99_ms\":%.3f",
         h_q(&h_lat, .5), h_q(&h_lat, .95), h_q(&h_lat, .99), ms(h_lat.max), per(h_lat.sum, (double)h_lat.n) / 1e6,
         h_q(&h_lag, .99));
  if (opt.mode == M_MUC)
    printf(",\"same_order_everywhere\":%s", same_order() ? "true" : "false");
  if (opt.mode == M_PRES)
    printf(",\"stored_presence_rx\":%llu", (ull)cnt.probe);
}

static void json_resume(void) {
  printf(
      ",\"resume\":{\"cut\":%llu,\"cut_by_server\":%llu,\"resumed\":%llu,\"failed\":%llu,\"unfinished\":%d,\"retries\":"
      "%llu",
      (ull)cnt.cut, (ull)cnt.cut_by_server, (ull)cnt.resumed, (ull)cnt.resume_failed, n_resuming,
      (ull)cnt.resume_retries);
  printf(",\"resent\":%llu,\"resent_anew\":%llu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}", (ull)cnt.resent,
         (ull)cnt.resent_anew, h_q(&h_resume, .5), h_q(&h_resume, .99), ms(h_resume.max));
}

static void json(figures *g, derived *d, phases *srv, phases *aux) {
  printf(
      "{\"tool\":\"xload\",\"label\":\"%s\",\"mode\":\"%s\",\"n\":%d,\"flows\":%d,\"loop\":\"%s\",\"rate\":%.0f,"
      "\"window\":%d",
      opt.label, mode_names[opt.mode], opt.n, nflow, opt.rate > 0 ? "open" : "closed", opt.rate,
      opt.rate > 0 ? 0 : opt.window);
  printf(",\"body\":%d,\"sm\":%d,\"tls\":%d,\"sasl\":\"%s\"", opt.body, opt.sm,
         opt.starttls ? 1
         : opt.direct ? 2
                      : 0,
         sasl_names[opt.sasl]);
  printf(",\"ok\":%s,\"timed_out\":%s,\"error\":\"%s\"", d->bad ? "false" : "true", timed_out ? "true" : "false",
         first_err);
  printf(
      ",\"login\":{\"ok\":%d,\"failed\":%d,\"s\":%.3f,\"per_s\":%.1f,\"p50_ms\":%.3f,\"p95_ms\":%.3f,\"p99_ms\":%.3f",
      g->login_ok, g->login_failed, g->login_s, per(g->login_ok, g->login_s), h_q(&h_login, .5), h_q(&h_login, .95),
      h_q(&h_login, .99));
  printf(",\"server_cpu_us\":%.0f,\"aux_cpu_us\":%.0f,\"xload_cpu_us\":%.0f}", per(g->login_cpu * 1e6, g->login_ok),
         per(g->login_aux_cpu * 1e6, g->login_ok), per(g->login_my_cpu * 1e6, g->login_ok));
  if (opt.reg)
    printf(",\"registered\":%d,\"register_refused\":%d", n_reg_ok, n_reg_conf);
  printf(",\"disconnects\":%d", n_dead - g->login_failed);
  if (nflow)
    json_traffic(g, d);
  if (opt.sm)
    printf(",\"sm_acks\":%llu", (ull)cnt.acks);
  if (opt.smresume)
    json_resume();
  printf(",\"server\":{\"procs\":%d,\"cpu_s\":%.2f,\"us_per_msg\":%.2f", srv->end.n, g->scpu, d->us);
  printf(",\"rss_kb_start\":%ld,\"rss_kb_loggedin\":%ld,\"rss_kb_end\":%ld", srv->start.rss_kb, srv->loggedin.rss_kb,
         srv->end.rss_kb);
  printf(",\"pss_kb_start\":%ld,\"pss_kb_loggedin\":%ld,\"pss_kb_end\":%ld", srv->start.pss_kb, srv->loggedin.pss_kb,
         srv->end.pss_kb);
  printf(",\"rss_kb_per_session\":%.2f,\"pss_kb_per_session\":%.2f}", d->rss, d->pss);
  printf(
      ",\"aux\":{\"procs\":%d,\"cpu_s\":%.2f,\"us_per_msg\":%.2f,\"pss_kb_start\":%ld,\"pss_kb_loggedin\":%ld,\"pss_kb_"
      "end\":%ld}",
      aux->end.n, g->acpu, d->aus, aux->start.pss_kb, aux->loggedin.pss_kb, aux->end.pss_kb);
  procs_json(nflow ? &srv->win0 : &srv->start, nflow ? &srv->win1 : &srv->end, "server_procs");
  printf(",\"xload\":{\"cpu_s\":%.2f,\"cpu_share\":%.3f,\"us_per_msg\":%.2f,\"rx_mb\":%.1f,\"tx_mb\":%.1f}", g->mycpu,
         per(g->mycpu, g->win_s), per(g->mycpu * 1e6, (double)cnt.win_del), (double)cnt.rx_bytes / 1e6,
         (double)cnt.tx_bytes / 1e6);
  printf(",\"other_cores_busy\":%.2f,\"spin_ms\":%.2f}\n", g->other, g->spin);
}

static void text(figures *g, derived *d, phases *srv) {
  printf("%s %s n=%d  login %d ok %d failed %.0f/s p50 %.1f p99 %.1f ms, server cpu %.0f us/login\n",
         mode_names[opt.mode], opt.label, opt.n, g->login_ok, g->login_failed, per(g->login_ok, g->login_s),
         h_q(&h_login, .5), h_q(&h_login, .99), per(g->login_cpu * 1e6, g->login_ok));
  if (opt.reg)
    printf("registered %d, refused (exist) %d\n", n_reg_ok, n_reg_conf);
  if (nflow) {
    printf("sent %llu delivered %llu of %llu lost %lld dup %llu ooo %llu bounced %llu\n", (ull)cnt.sent, (ull)cnt.del,
           (ull)d->expect, (long long)d->lost, (ull)cnt.dup, (ull)cnt.ooo, (ull)cnt.bounce);
    printf(
        "window %.2f s: %.0f sent/s %.0f delivered/s  latency ms p50 %.3f p95 %.3f p99 %.3f max %.3f  (send lag p99 "
        "%.3f)\n",
        g->win_s, per((double)cnt.win_sent, g->win_s), per((double)cnt.win_del, g->win_s), h_q(&h_lat, .5),
        h_q(&h_lat, .95), h_q(&h_lat, .99), ms(h_lat.max), h_q(&h_lag, .99));
    printf(
        "server cpu %.2f s = %.1f us/msg; aux %.2f s = %.1f us/msg; xload %.0f %% of a core; others %.2f cores, spin "
        "%.2f ms\n",
        g->scpu, d->us, g->acpu, d->aus, 100 * per(g->mycpu, g->win_s), g->other, g->spin);
  }
  if (opt.smresume)
    printf(
        "cut %llu (+%llu by the server) resumed %llu failed %llu unfinished %d retries %llu resent %llu (anew %llu); "
        "ms to resume p50 %.2f p99 %.2f max %.2f\n",
        (ull)cnt.cut, (ull)cnt.cut_by_server, (ull)cnt.resumed, (ull)cnt.resume_failed, n_resuming,
        (ull)cnt.resume_retries, (ull)cnt.resent, (ull)cnt.resent_anew, h_q(&h_resume, .5), h_q(&h_resume, .99),
        ms(h_resume.max));
  printf("server rss %.1f -> %.1f MB = %.1f kB/session (pss %.1f kB); disconnects %d%s%s\n",
         (double)srv->start.rss_kb / 1024, (double)srv->loggedin.rss_kb / 1024, d->rss, d->pss,
         n_dead - g->login_failed, first_err[0] ? "; first error: " : "", first_err);
}

int report(figures *g, phases *srv, phases *aux) {
  derived d = {.expect = cnt.sent};
  if (opt.mode == M_MUC)
    d.expect = cnt.sent * (uint64_t)(opt.n / opt.rooms);
  if (opt.mode == M_PRES)
    d.expect = cnt.del;
  d.lost = (int64_t)d.expect - (int64_t)cnt.del;
  d.us = per(g->scpu * 1e6, (double)cnt.win_del);
  d.aus = per(g->acpu * 1e6, (double)cnt.win_del);
  d.rss = per((double)(srv->loggedin.rss_kb - srv->start.rss_kb), g->login_ok);
  d.pss = per((double)(srv->loggedin.pss_kb - srv->start.pss_kb), g->login_ok);
  d.bad = !g->usable || timed_out || n_dead || n_resuming || cnt.resume_failed || (nflow && !cnt.del);
  if (opt.json)
    json(g, &d, srv, aux);
  else
    text(g, &d, srv);
  fflush(stdout);
  return d.bad ? 1 : 0;
}
