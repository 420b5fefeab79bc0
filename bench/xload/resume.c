/* XEP-0198 resumption: keeps what was sent until it is acknowledged, cuts connections (or finds them cut), connects
 * again to the next target, resumes, and sends again what lies above h. */
#include "xload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MAX (128 * 1024) /* bytes unacknowledged; then the session's flow waits */
#define BACKOFF_MIN (NS / 10)
#define BACKOFF_MAX (2 * NS)

static uint32_t *waiting; /* sessions in S_CUT */
static int n_waiting, dropping;
static uint64_t next_drop, next_check, rnd = 0x9E3779B97F4A7C15ull;

/* ------------------------------------------------------------------ the queue */
void resume_alloc(sess *s) {
  if (!waiting && !(waiting = calloc((size_t)opt.n, sizeof *waiting)))
    die("memory");
  s->r = calloc(1, sizeof *s->r);
  if (!s->r)
    die("memory");
  s->r->old_fd = -1;
}

static int make_room(resm *r, uint32_t n) {
  if (r->off == r->len)
    r->off = r->cur = r->len = 0;
  if (r->len + n > r->cap && r->off) {
    memmove(r->q, r->q + r->off, r->len - r->off);
    r->cur -= r->off;
    r->len -= r->off;
    r->off = 0;
  }
  if (r->len + n <= r->cap)
    return 1;
  uint32_t cap = r->cap ? r->cap : 1024;
  while (cap < r->len + n)
    cap *= 2;
  if (cap > QUEUE_MAX)
    return 0;
  char *q = realloc(r->q, cap);
  if (!q)
    return 0;
  r->q = q;
  r->cap = cap;
  return 1;
}

static uint16_t entry_len(const char *q) {
  uint16_t n;
  memcpy(&n, q, 2);
  return n;
}

static void ask(sess *s) {
  if (put(s, "<r xmlns='urn:xmpp:sm:3'/>", 26))
    s->sm_unreq = 0;
}

int resume_queue(sess *s, const char *b, size_t n) {
  resm *r = s->r;
  uint16_t len = (uint16_t)n;
  if (!make_room(r, (uint32_t)n + 2)) {
    if (!r->full)
      ask(s);
    r->full = 1;
    return 0;
  }
  memcpy(r->q + r->len, &len, 2);
  memcpy(r->q + r->len + 2, b, n);
  r->len += (uint32_t)n + 2;
  r->n++;
  resume_pump(s);
  return 1;
}

void resume_pump(sess *s) {
  resm *r = s->r;
  while (r->cur < r->len) {
    uint16_t n = entry_len(r->q + r->cur);
    if (!put(s, r->q + r->cur + 2, n))
      return;
    r->cur += 2u + n;
    r->ncur++;
    if (++s->sm_unreq >= (uint32_t)opt.smr)
      ask(s);
  }
  if (s->sm_unreq >= (uint32_t)opt.smr)
    ask(s); /* there was no room for it before */
}

void resume_ack(sess *s, uint32_t h) {
  resm *r = s->r;
  uint32_t d = h - s->sm_acked; /* modulo 2^32 */
  if (d > r->ncur) {
    note_err("h=%u acknowledges more than was sent (%u)", h, s->sm_acked + r->ncur);
    kill_sess(s, "h too high");
    return;
  }
  s->sm_acked = h;
  r->n -= d;
  r->ncur -= d;
  while (d--)
    r->off += 2u + entry_len(r->q + r->off);
  if (r->full && s->st == S_READY) {
    r->full = 0;
    flow_refill(s);
  }
}

/* ------------------------------------------------------------------ cut and resume */
int resume_possible(sess *s) {
  return s->r && !leaving && (s->r->active || (s->st == S_READY && s->r->id[0]));
}

void resume_cut(sess *s) {
  resm *r = s->r;
  uint64_t now = now_ns();
  if (s->st == S_READY) {
    n_ready--;
    n_resuming++;
    r->active = 1;
    r->tries = 0;
    r->t_cut = now;
    r->t_due = now + (uint64_t)(opt.resume_delay * 1e9);
  } else { /* an attempt came to nothing */
    uint64_t wait = BACKOFF_MIN << (r->tries < 5 ? r->tries : 5);
    n_inflight--;
    cnt.resume_retries++;
    r->tries++;
    r->t_due = now + (wait < BACKOFF_MAX ? wait : BACKOFF_MAX);
  }
  close_conn(s);
  parser_reset(s);
  s->st = S_CUT;
  s->authed = s->tls = s->sm = s->want_out = 0;
  s->ooff = s->olen = s->sm_unreq = 0;
  s->target = (uint8_t)((s->target + 1) % opt.ntargets);
  waiting[n_waiting++] = (uint32_t)(s - S);
}

static void drop(sess *s) { /* as a network does it: without </stream:stream> */
  struct linger rst = {.l_onoff = 1, .l_linger = 0};
  if (opt.drop_how == DROP_HANG)
    keep_conn(s);
  else if (opt.drop_how == DROP_RST)
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof rst);
  cnt.cut++;
  resume_cut(s);
}

void resume_request(sess *s) {
  s->st = S_RESUME;
  putf(s, "<resume xmlns='urn:xmpp:sm:3' h='%u' previd='%s'/>", s->sm_in, s->r->id);
}

void resume_ended(sess *s) {
  s->r->active = 0;
  n_resuming--;
  if (s->r->old_fd >= 0)
    close(s->r->old_fd);
  s->r->old_fd = -1;
}

static void send_left(sess *s) { /* what a refused resumption left over: messages only, as new stanzas */
  resm *r = s->r;
  for (uint32_t i = 0; i < r->left_len; i += 2u + entry_len(r->left + i))
    if (!strncmp(r->left + i + 2, "<message", 8) && resume_queue(s, r->left + i + 2, entry_len(r->left + i)))
      cnt.resent_anew++;
  free(r->left);
  r->left = NULL;
  r->left_len = 0;
}

void resume_done(sess *s) {
  resm *r = s->r;
  if (!(s->flags & F_HAVEH)) {
    kill_sess(s, "<resumed/> without h");
    return;
  }
  resume_ack(s, (uint32_t)strtoul(s->hh, NULL, 10));
  if (s->st == S_DEAD)
    return;
  cnt.resumed++;
  cnt.resent += r->ncur;
  h_add(&h_resume, now_ns() - r->t_cut - (uint64_t)(opt.resume_delay * 1e9));
  r->cur = r->off;
  r->ncur = 0;
  r->full = 0;
  s->sm = 1;
  s->st = S_READY;
  n_inflight--;
  n_ready++;
  resume_ended(s);
  resume_pump(s);
  if (r->n)
    ask(s);
  send_left(s);
  flow_refill(s);
}

void resume_refused(sess *s) {
  resm *r = s->r;
  cnt.resume_failed++;
  note_err("resumption refused: %s", s->cond);
  if (s->flags & F_HAVEH)
    resume_ack(s, (uint32_t)strtoul(s->hh, NULL, 10));
  if (s->st == S_DEAD)
    return;
  if (!r->left && r->len > r->off) {
    r->left_len = r->len - r->off;
    r->left = malloc(r->left_len);
    if (!r->left)
      die("memory");
    memcpy(r->left, r->q + r->off, r->left_len);
  }
  r->off = r->cur = r->len = r->n = r->ncur = 0;
  r->id[0] = 0;
  s->sm = 0;
  s->st = S_BIND;
  putf(s, "<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq>",
       opt.res);
}

void resume_after_login(sess *s) {
  resume_ended(s);
  send_left(s);
  flow_refill(s);
}

/* ------------------------------------------------------------------ time */
void resume_drops(int on) {
  dropping = on && opt.drop_rate > 0;
  next_drop = now_ns() + (dropping ? (uint64_t)(1e9 / opt.drop_rate) : 0);
  rnd ^= run_id;
}

static sess *pick(void) {
  for (int k = 0; k < 100 && n_ready; k++) {
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;
    sess *s = &S[rnd % (uint64_t)opt.n];
    if (s->st == S_READY)
      return s;
  }
  return NULL;
}

void resume_turn(uint64_t now) {
  for (; dropping && next_drop <= now; next_drop += (uint64_t)(1e9 / opt.drop_rate)) {
    sess *s = pick();
    if (s)
      drop(s);
  }
  for (int i = 0; i < n_waiting;) {
    sess *s = &S[waiting[i]];
    if (s->st == S_CUT && (s->r->t_due > now || n_inflight >= opt.conc)) {
      i++;
      continue;
    }
    waiting[i] = waiting[--n_waiting];
    if (s->st == S_CUT)
      start_sess(s);
  }
  if (n_resuming && now >= next_check) {
    next_check = now + NS;
    for (int i = 0; i < opt.n; i++)
      if (S[i].r->active && now > S[i].r->t_cut + (uint64_t)(opt.resume_timeout * 1e9))
        kill_sess(&S[i], "not resumed in time");
  }
}

uint64_t resume_wait(uint64_t now, uint64_t wait) {
  if (n_waiting && wait > 1000000)
    wait = 1000000;
  if (dropping && next_drop <= now)
    return 0;
  if (dropping && next_drop - now < wait)
    wait = next_drop - now;
  return wait;
}
