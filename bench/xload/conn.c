/* Sockets, TLS, output buffers and the event loop. */
#include "xload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifndef NOTLS
#include <openssl/err.h>
#endif

#define RBUF (256 * 1024)

static int ep, ndirty;
static uint32_t *dirty; /* sessions with new output */
static char rbuf[RBUF];
#ifndef NOTLS
static SSL_CTX *ctx;
#endif

void conn_init(void) {
#ifndef NOTLS
  if (opt.starttls || opt.direct) {
    ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  }
#endif
  ep = epoll_create1(EPOLL_CLOEXEC);
  S = calloc((size_t)opt.n, sizeof *S);
  dirty = calloc((size_t)opt.n + 1, sizeof *dirty);
  char *ob = malloc((size_t)opt.n * OBUF);
  if (!S || !dirty || !ob)
    die("memory");
  for (int i = 0; i < opt.n; i++) {
    S[i].fd = -1;
    S[i].o = ob + (size_t)i * OBUF;
    S[i].target = (uint8_t)(i % opt.ntargets);
    if (opt.smresume)
      resume_alloc(&S[i]);
  }
}

void keep_conn(sess *s) { /* leaves the connection open, unread and without owner, in s->r->old_fd */
  epoll_ctl(ep, EPOLL_CTL_DEL, s->fd, NULL);
  s->r->old_fd = s->fd;
  s->fd = -1;
}

void close_conn(sess *s) {
#ifndef NOTLS
  if (s->ssl) {
    SSL_free(s->ssl);
    s->ssl = NULL;
  } /* sends no close_notify */
#endif
  if (s->fd >= 0)
    close(s->fd);
  s->fd = -1;
  scram_free(s->sc);
  s->sc = NULL;
}

void kill_sess(sess *s, const char *why) {
  if (s->st == S_DEAD)
    return;
  note_err("session %d: %s (state %d, errno %d %s)", (int)(s - S), why, s->st, errno, strerror(errno));
  if (s->st == S_READY)
    n_ready--;
  else if (s->st > S_CUT)
    n_inflight--;
  if (s->r && s->r->active)
    resume_ended(s);
  s->st = S_DEAD;
  n_dead++;
  close_conn(s);
}

void lost(sess *s, const char *why) {
  if (s->st == S_DEAD || s->st == S_CUT)
    return;
  if (!resume_possible(s)) {
    kill_sess(s, why);
    return;
  }
  if (s->st == S_READY)
    cnt.cut_by_server++;
  resume_cut(s);
}

static void set_out(sess *s, int on) {
  if (s->want_out == on)
    return;
  s->want_out = on;
  struct epoll_event e = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.u32 = (uint32_t)(s - S)};
  epoll_ctl(ep, EPOLL_CTL_MOD, s->fd, &e);
}

static void flush_sess(sess *s) {
  s->dirty = 0;
  if (s->st == S_DEAD || s->st <= S_TLS)
    return;
again:
  while (s->ooff < s->olen) {
    ssize_t k;
#ifndef NOTLS
    if (s->ssl) {
      ERR_clear_error();
      k = SSL_write(s->ssl, s->o + s->ooff, (int)(s->olen - s->ooff));
      if (k <= 0) {
        int e = SSL_get_error(s->ssl, (int)k);
        if (e == SSL_ERROR_WANT_WRITE || e == SSL_ERROR_WANT_READ) {
          set_out(s, 1);
          return;
        }
        lost(s, "tls write");
        return;
      }
    } else
#endif
    {
      k = send(s->fd, s->o + s->ooff, s->olen - s->ooff, MSG_NOSIGNAL);
      if (k < 0) {
        if (errno == EAGAIN || errno == EINTR) {
          set_out(s, 1);
          return;
        }
        lost(s, "write");
        return;
      }
    }
    s->ooff += (uint32_t)k;
    cnt.tx_bytes += (uint64_t)k;
  }
  s->ooff = s->olen = 0;
  if (s->r && s->sm) { /* more may wait in the queue */
    s->dirty = 1;
    resume_pump(s);
    s->dirty = 0;
    if (s->olen)
      goto again;
  }
  set_out(s, 0);
}

int room_for(sess *s, size_t n) {
  if (s->olen + n <= OBUF)
    return 1;
  if (s->ooff) {
#ifndef NOTLS
    if (s->ssl)
      return 0; /* a TLS retry must see the same bytes */
#endif
    memmove(s->o, s->o + s->ooff, s->olen - s->ooff);
    s->olen -= s->ooff;
    s->ooff = 0;
  }
  return s->olen + n <= OBUF;
}

int put(sess *s, const char *b, size_t n) {
  if (s->fd < 0 || !room_for(s, n))
    return 0;
  if (opt.trace && s == S)
    fprintf(stderr, ">> %.*s\n", (int)n, b);
  if (s->ws == WS_OPEN) {
    if (!ws_put(s, b, n))
      return 0;
  } else {
    memcpy(s->o + s->olen, b, n);
    s->olen += (uint32_t)n;
  }
  if (!s->dirty) {
    s->dirty = 1;
    dirty[ndirty++] = (uint32_t)(s - S);
  }
  return 1;
}

int putf(sess *s, const char *f, ...) {
  char b[2048];
  va_list a;
  va_start(a, f);
  int n = vsnprintf(b, sizeof b, f, a);
  va_end(a);
  return put(s, b, (size_t)n);
}

int put_stanza(sess *s, const char *b, size_t n) {
  if (s->r && s->sm)
    return resume_queue(s, b, n);
  if (!put(s, b, n))
    return 0;
  if (s->sm) {
    if (opt.smr && ++s->sm_unreq >= (uint32_t)opt.smr && put(s, "<r xmlns='urn:xmpp:sm:3'/>", 26))
      s->sm_unreq = 0;
  }
  return 1;
}

static void begin_stream(sess *s) {
  if (opt.websocket)
    ws_begin(s);
  else
    new_stream(s);
}

static void arrived(sess *s, size_t n) {
  cnt.rx_bytes += (uint64_t)n;
  if (s->ws)
    ws_feed(s, rbuf, n);
  else
    feed(s, rbuf, n);
}

#ifndef NOTLS
static void tls_step(sess *s) {
  ERR_clear_error();
  int k = SSL_connect(s->ssl);
  if (k == 1) {
    s->tls = 1;
    s->st = S_FEAT;
    set_out(s, 0);
    begin_stream(s);
    return;
  }
  int e = SSL_get_error(s->ssl, k);
  if (e == SSL_ERROR_WANT_READ)
    set_out(s, 0);
  else if (e == SSL_ERROR_WANT_WRITE)
    set_out(s, 1);
  else
    lost(s, "tls handshake");
}

void tls_start(sess *s) {
  s->ssl = SSL_new(ctx);
  SSL_set_fd(s->ssl, s->fd);
  SSL_set_tlsext_host_name(s->ssl, domain_of(s));
  SSL_set_connect_state(s->ssl);
  s->st = S_TLS;
  tls_step(s);
}
#endif

/* ------------------------------------------------------------------ event loop */
void start_sess(sess *s) {
  s->t0 = now_ns();
  s->ws = WS_NONE;
  s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  n_inflight++;
  s->st = S_CONN;
  if (s->fd < 0) {
    kill_sess(s, "socket");
    return;
  }
  int one = 1;
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (opt.srcips > 1) {
    struct sockaddr_in b = {.sin_family = AF_INET};
    b.sin_addr.s_addr = htonl(0x7f000001u + 1 + (uint32_t)((s - S) % opt.srcips));
    setsockopt(s->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    if (bind(s->fd, (struct sockaddr *)&b, sizeof b)) {
      kill_sess(s, "bind source");
      return;
    }
  }
  struct sockaddr_in *a = at_peer(s) ? &opt.peer : &opt.target[s->target];
  struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)(s - S)};
  s->want_out = 1;
  epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e);
  if (connect(s->fd, (struct sockaddr *)a, sizeof *a) && errno != EINPROGRESS)
    lost(s, "connect");
}

static void on_event(sess *s, uint32_t ev) {
  if (s->st == S_DEAD || s->fd < 0)
    return;
  if (s->st == S_CONN) {
    int err = 0;
    socklen_t l = sizeof err;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &l);
    if (err) {
      errno = err;
      lost(s, "connect");
      return;
    }
    if (!(ev & EPOLLOUT))
      return;
#ifndef NOTLS
    if (opt.direct) {
      tls_start(s);
      return;
    }
#endif
    s->st = S_FEAT;
    begin_stream(s);
    return;
  }
#ifndef NOTLS
  if (s->st == S_TLS) {
    tls_step(s);
    return;
  }
#endif
  if (ev & EPOLLOUT) {
    flush_sess(s);
    if (s->fd < 0)
      return;
  }
  if (ev & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
#ifndef NOTLS
    if (s->ssl) {
      for (int i = 0; i < 16; i++) {
        ERR_clear_error();
        int k = SSL_read(s->ssl, rbuf, RBUF);
        if (k <= 0) {
          int e = SSL_get_error(s->ssl, k);
          if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
            lost(s, "connection lost (tls)");
          return;
        }
        arrived(s, (size_t)k);
        if (!s->ssl)
          return;
        if (!SSL_pending(s->ssl))
          return;
      }
      return;
    }
#endif
    ssize_t k = recv(s->fd, rbuf, RBUF, 0);
    if (k > 0)
      arrived(s, (size_t)k);
    else if (k == 0) {
      errno = 0;
      lost(s, "connection closed by server");
    } else if (errno != EAGAIN && errno != EINTR)
      lost(s, "read");
  }
}

void flush_dirty(void) {
  for (int i = 0; i < ndirty; i++)
    flush_sess(&S[dirty[i]]);
  ndirty = 0;
}

void turn(uint64_t max_wait_ns) {
  struct epoll_event ev[512];
  if (opt.smresume)
    max_wait_ns = resume_wait(now_ns(), max_wait_ns);
  struct timespec ts = {.tv_sec = (time_t)(max_wait_ns / NS), .tv_nsec = (long)(max_wait_ns % NS)};
  int n = epoll_pwait2(ep, ev, 512, &ts, NULL);
  for (int i = 0; i < n; i++)
    on_event(&S[ev[i].data.u32], ev[i].events);
  if (phase_send && opt.rate > 0)
    for (int i = 0; i < n; i++) /* sessions that drained: send their backlog */
      if (ev[i].events & EPOLLOUT)
        flow_refill(&S[ev[i].data.u32]);
  flush_dirty();
  if (opt.smresume) {
    resume_turn(now_ns());
    flush_dirty();
  }
  if (now_ns() - t_begin > (uint64_t)(opt.max * 1e9) || sig_stop) {
    timed_out = !sig_stop;
    sig_stop = 1;
  }
}

void run_for(double sec) {
  uint64_t end = now_ns() + (uint64_t)(sec * 1e9), t;
  while (!sig_stop && (t = now_ns()) < end)
    turn(end - t < 50000000 ? end - t : 50000000);
}
