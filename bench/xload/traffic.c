/* Flows: numbered messages (or presences) from one session, and what became of them: loss, doubles, order, latency. */
#include "xload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t next_idx;

static int mk_payload(char *b, uint32_t f, uint64_t seq, uint64_t t, int size) {
  int n = sprintf(b, "XL:%x:%x:%llx:%llx:", run_id, f, (unsigned long long)seq, (unsigned long long)t);
  if (n < size) {
    memset(b + n, 'x', (size_t)(size - n));
    n = size;
  }
  return n;
}

int flow_send(flow *f, uint64_t intended, uint64_t now) {
  sess *s = &S[f->src];
  char b[OBUF];
  int n;
  if (s->st != S_READY)
    return 0;
  if ((size_t)opt.body + 300 > OBUF - 16)
    return 0;
  if (!room_for(s, (size_t)opt.body + 300))
    return 0;
  uint32_t fi = (uint32_t)(f - F);
  if (opt.mode == M_MUC)
    n = sprintf(b, "<message type='groupchat' to='%s%u@%s' id='%x.%llx'><body>", opt.room, f->room, opt.mucdom, fi,
                (unsigned long long)f->sent);
  else if (opt.full && S[f->dst].jid[0])
    n = sprintf(b, "<message type='chat' to='%s' id='%x.%llx'><body>", S[f->dst].jid, fi, (unsigned long long)f->sent);
  else
    n = sprintf(b, "<message type='chat' to='%s%d@%s' id='%x.%llx'><body>", opt.prefix, (int)f->dst + opt.offset,
                domain_of(&S[f->dst]), fi, (unsigned long long)f->sent);
  n += mk_payload(b + n, fi, f->sent + 1, intended, opt.body);
  memcpy(b + n, "</body></message>", 17);
  n += 17;
  if (!put_stanza(s, b, (size_t)n))
    return 0;
  f->sent++;
  f->outst++;
  cnt.sent++;
  if (now >= t_meas) {
    cnt.win_sent++;
    h_add(&h_lag, now - intended);
  }
  return 1;
}

static int pres_send(flow *f, uint64_t intended, uint64_t now) { /* presence mode: toggle offline/online */
  sess *s = &S[f->src];
  char b[400], p[200];
  if (s->st != S_READY)
    return 0;
  int k = mk_payload(p, (uint32_t)(f - F), f->sent + 1, intended, 40);
  int n = sprintf(b, "<presence%s><status>%.*s</status></presence>", s->online ? " type='unavailable'" : "", k, p);
  if (!put_stanza(s, b, (size_t)n))
    return 0;
  s->online = !s->online;
  if (s->online)
    s->avail_ns = now;
  f->sent++;
  cnt.sent++;
  if (now >= t_meas) {
    cnt.win_sent++;
    h_add(&h_lag, now - intended);
  }
  return 1;
}

void flow_push(flow *f, uint64_t now) { /* open loop: send what is due */
  while (f->sent < f->due) {
    uint64_t t = t_send0 + (uint64_t)((double)(f->sent * (uint64_t)nflow + (uint64_t)(f - F)) * iv_ns);
    if (!(opt.mode == M_PRES ? pres_send(f, t, now) : flow_send(f, t, now)))
      break;
  }
}

void got_payload(sess *s, uint64_t now) {
  char *p = s->body + 3, *q;
  uint32_t run = (uint32_t)strtoul(p, &q, 16);
  if (*q != ':' || run != run_id) {
    cnt.foreign++;
    return;
  }
  uint32_t fi = (uint32_t)strtoul(q + 1, &q, 16);
  if (*q != ':' || fi >= (uint32_t)nflow) {
    cnt.foreign++;
    return;
  }
  uint64_t seq = strtoull(q + 1, &q, 16);
  if (*q != ':') {
    cnt.foreign++;
    return;
  }
  uint64_t ts = strtoull(q + 1, &q, 16);
  flow *f = &F[fi];
  if (opt.mode == M_PRES) {
    if (ts < s->avail_ns) {
      cnt.probe++;
      return;
    } /* stored presence handed out on login */
    cnt.del++;
  } else if (opt.mode == M_MUC) {
    uint32_t *l = &muc_last[(size_t)(s - S) * (size_t)nflow + fi];
    if (seq <= *l) {
      cnt.dup++;
      return;
    }
    if (seq != *l + 1)
      cnt.ooo++; /* a gap: lost or overtaken */
    *l = (uint32_t)seq;
    s->rx++;
    s->ordhash = (s->ordhash ^ ((uint64_t)fi << 40 ^ seq)) * 0x9E3779B97F4A7C15ull + 1;
    cnt.del++;
  } else {
    if ((uint32_t)(s - S) != f->dst) {
      cnt.foreign++;
      return;
    }
    if (seq > f->rxmax) {
      uint64_t d = seq - f->rxmax;
      if (d >= 256)
        memset(f->bm, 0, sizeof f->bm);
      else
        for (uint64_t i = f->rxmax + 1; i <= seq; i++)
          f->bm[(i >> 6) & 3] &= ~(1ull << (i & 63));
      f->rxmax = seq;
    } else {
      if (f->rxmax - seq >= 256) {
        cnt.ooo++;
      } else if (f->bm[(seq >> 6) & 3] >> (seq & 63) & 1) {
        cnt.dup++;
        return;
      } else
        cnt.ooo++;
    }
    f->bm[(seq >> 6) & 3] |= 1ull << (seq & 63);
    f->got++;
    cnt.del++;
  }
  if (phase_send && now >= t_meas)
    cnt.win_del++;
  if (ts >= t_meas && t_meas)
    h_add(&h_lat, now > ts ? now - ts : 0);
  if (opt.mode == M_PRES)
    return;
  if (opt.mode == M_MUC && (uint32_t)(s - S) != f->src)
    return;
  f->last_ns = now;
  if (f->outst > 0)
    f->outst--;
  if (phase_send && opt.rate <= 0)
    while (f->outst < opt.window && flow_send(f, now, now)) {
    }
}

static flow *flow_of(sess *s) { /* the one flow this session sends, if any */
  int i = (int)(s - S), pairs = opt.n / 2;
  if (opt.mode == M_CHAT)
    i = i % 2 == 0 ? i / 2 : pairs + i / 2;
  return i < nflow ? &F[i] : NULL;
}

void flow_refill(sess *s) {
  flow *f = flow_of(s);
  uint64_t now = now_ns();
  if (!f || !phase_send)
    return;
  if (opt.rate > 0)
    flow_push(f, now);
  else
    while (f->outst < opt.window && flow_send(f, now, now)) {
    }
}
