/* xload - XMPP client load generator (one thread, epoll, fixed memory per session). See README.md beside this file.
 *
 * main.c     the phases of a run              options.c  the command line
 * conn.c     sockets, TLS, the event loop     parse.c    bytes -> stanzas
 * login.c    stream, SASL, bind, XEP-0198     stanza.c   what a received stanza does
 * traffic.c  flows, message numbers, loss     resume.c   XEP-0198 resumption
 * scram.c    SCRAM, client side               procs.c    CPU and memory of processes
 * report.c   JSON and text output         websocket.c  RFC 7395 */
#ifndef XLOAD_H
#define XLOAD_H
#define _GNU_SOURCE
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#ifndef NOTLS
#include <openssl/ssl.h>
#endif
#include "hist.h"
#include "procs.h"
#include "scram.h"

#define OBUF 8192
#define NS 1000000000ull
#define MAX_TARGETS 32

/* ------------------------------------------------------------------ options */
enum { M_IDLE, M_CHAT, M_MUC, M_PRES, M_REG };

enum { DROP_FIN, DROP_RST, DROP_HANG };

typedef struct {
  int mode, n, starttls, direct, sm, smr, reg, sasl; /* sasl: a SASL_ value of scram.h */
  int body, window, conc, bidi, full, srcips, json, roster, noping, rooms, senders, contacts, setup, offset, quiet,
      nodecl, trace, websocket;
  int smresume, drop_how;
  double rate, dur, warm, drain, hold, settle, max, logto;
  double drop_rate, resume_delay, resume_timeout; /* per second, seconds, seconds */
  const char *domain, *pass, *prefix, *mucdom, *room, *label, *res, *scram_cache;
  const char *peer_domain; /* of the second server, where odd sessions sign in; NULL = there is none */
  struct sockaddr_in target[MAX_TARGETS], peer;
  int ntargets;
} options;

extern options opt;
extern const char *mode_names[5];
void parse_options(int argc, char **argv, watch *w_srv, watch *w_aux); /* ends the program on a mistake */

/* ------------------------------------------------------------------ sessions */
/* S_CUT: had a session that may be resumed, has no connection just now */
enum { S_NEW, S_CUT, S_CONN, S_TLS, S_FEAT, S_STLS, S_REG, S_AUTH, S_BIND, S_SM, S_RESUME, S_WAIT, S_READY, S_DEAD };

enum { WS_NONE, WS_ASKED, WS_OPEN }; /* of a connection */

enum {
  K_OTHER,
  K_MESSAGE,
  K_PRESENCE,
  K_IQ,
  K_FEATURES,
  K_ERROR,
  K_SUCCESS,
  K_FAILURE,
  K_PROCEED,
  K_ENABLED,
  K_FAILED,
  K_R,
  K_A,
  K_CHALLENGE,
  K_RESUMED
};

#define F_SELF 1    /* MUC status 110 */
#define F_NEWROOM 2 /* MUC status 201 */
#define F_HAVEBODY 4
#define F_HAVEH 8   /* attribute h was there */
#define F_RESUME 16 /* <enabled resume='true'/> */

/* XEP-0198 resumption: every stanza sent and not yet acknowledged, in order, as [2 bytes length][bytes] */
typedef struct {
  char id[160]; /* the previd of <resume/> */
  char *q;      /* queue: q[off..len), sent up to cur */
  uint32_t off, cur, len, cap;
  uint32_t n, ncur; /* stanzas in the queue; of these sent on this connection */
  char *left;       /* a failed resumption's queue, to be sent anew on the new session */
  uint32_t left_len;
  uint64_t t_cut, t_due; /* when the connection went; when to connect again (while S_CUT) */
  int old_fd;            /* --drop-how hang: the connection left behind */
  uint16_t tries;
  uint8_t active; /* between a cut and its end */
  uint8_t full;   /* the queue had no room: refill the flow when it has */
} resm;

typedef struct {
  int fd;
  uint8_t st, authed, tls, sm, want_out, dirty, joined, online, target, ws;
  unsigned char wh[10]; /* head of a frame, and how much of it is there; payload that is still to come */
  uint8_t whn;
  uint64_t wneed;
  /* tokenizer */
  uint8_t ps, quote, nlen, alen, cap, capbody, top;
  uint16_t depth, vlen, blen;
  uint32_t flags;
  char name[20], an[8], type[14], id[40], from[96], jid[112], hh[12], code[6], body[72], cond[28];
  /* output */
  uint32_t ooff, olen;
  uint32_t sm_in, sm_unreq, sm_acked;
  uint64_t t0;          /* login start */
  uint64_t avail_ns;    /* presence mode: when last came online */
  uint64_t ordhash, rx; /* muc: order hash and count of room messages */
  uint32_t subs;        /* presence setup: 'subscribed' seen */
  char *o;
  scram *sc; /* only while SCRAM runs */
  resm *r;   /* only with --sm-resume */
#ifndef NOTLS
  SSL *ssl;
#endif
} sess;

typedef struct {
  uint32_t src, dst, room;
  uint64_t sent, due, got, rxmax;
  uint64_t bm[4]; /* 256-message duplicate window */
  uint64_t last_ns;
  int outst;
} flow;

typedef struct {
  uint64_t sent, del, dup, ooo, bounce, foreign, win_del, win_sent, probe, acks, rx_bytes, tx_bytes;
  uint64_t cut, cut_by_server, resumed, resume_failed, resume_retries, resent, resent_anew;
} counters;

extern sess *S;
extern flow *F;
extern int nflow;
extern uint32_t *muc_last; /* [receiver][sender index] last seq seen */
extern int n_ready, n_inflight, n_started, n_dead, n_reg_ok, n_reg_conf, n_joined, n_resuming;
extern char first_err[200];
extern uint32_t run_id;
extern hist h_lat, h_lag, h_login, h_resume;
extern counters cnt;
extern uint64_t t_begin, t_send0, t_meas, t_send_end;
extern int phase_send, timed_out, leaving; /* leaving: streams are being closed, nothing is resumed */
extern double iv_ns;
extern volatile sig_atomic_t sig_stop;

static inline int at_peer(sess *s) {
  return opt.peer_domain && (s - S) % 2;
}

static inline const char *domain_of(sess *s) {
  return at_peer(s) ? opt.peer_domain : opt.domain;
}

/* main.c */
uint64_t now_ns(void); /* monotonic */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *f, ...);
__attribute__((format(printf, 1, 2))) void note_err(const char *f, ...); /* the first one is kept for the report */

static inline int uidx(sess *s) {
  return (int)(s - S) + opt.offset;
}

/* conn.c */
void conn_init(void);
void start_sess(sess *s);                 /* connects; the login follows from events */
void close_conn(sess *s);                 /* drops the connection without a word to the server */
void keep_conn(sess *s);                  /* leaves the connection open, unread and without owner, in s->r->old_fd */
void kill_sess(sess *s, const char *why); /* this session is over, and counted as dead */
void lost(sess *s, const char *why);      /* the connection is gone: resume if that is possible, else as kill_sess */
int room_for(sess *s, size_t n);
int put(sess *s, const char *b, size_t n);        /* into the output buffer; 0 = no room */
int put_stanza(sess *s, const char *b, size_t n); /* the same for a stanza, which XEP-0198 counts */
__attribute__((format(printf, 2, 3))) int putf(sess *s, const char *f, ...);
void flush_dirty(void);
void turn(uint64_t max_wait_ns); /* one round of the event loop */
void run_for(double sec);
#ifndef NOTLS
void tls_start(sess *s);
#endif

/* websocket.c */
void ws_begin(sess *s);                          /* the handshake; then a stream */
int ws_put(sess *s, const char *b, size_t n);    /* put, in a frame */
void ws_feed(sess *s, const char *p, size_t len); /* what the server sends, until feed gets it */

/* parse.c */
void feed(sess *s, const char *p, size_t len);

static inline void parser_reset(sess *s) {
  s->ps = 0;
  s->depth = 0;
  s->capbody = 0;
  s->cap = 0;
}

/* login.c */
void new_stream(sess *s);
void login_step(
    sess *s);          /* <features/>, <challenge/>, <success/>, <enabled/>, <resumed/> ... and the iqs of the login */
int login_iq(sess *s); /* 1 = the iq belonged to the login */

/* stanza.c */
void stanza(sess *s);

/* traffic.c */
int flow_send(flow *f, uint64_t intended, uint64_t now);
void flow_push(flow *f, uint64_t now);
void flow_refill(sess *s); /* this session can send again: send what its flow owes */
void got_payload(sess *s, uint64_t now);
extern uint64_t next_idx; /* open loop: next global message number */

/* resume.c */
void resume_alloc(sess *s);
int resume_queue(sess *s, const char *b, size_t n); /* put_stanza with a queue; 0 = full */
void resume_pump(sess *s);                          /* queue -> output buffer, as far as there is room */
void resume_ack(sess *s, uint32_t h);
int resume_possible(sess *s);
void resume_cut(sess *s); /* connection gone: connect again later, and resume */
void resume_request(sess *s);
void resume_done(sess *s);
void resume_refused(sess *s);                      /* <failed/>: bind anew */
void resume_after_login(sess *s);                  /* after a refused resumption: send the old queue anew */
void resume_ended(sess *s);                        /* whole again, resumed or new, or dead */
void resume_turn(uint64_t now);                    /* cuts that are due, reconnections that are due, timeouts */
uint64_t resume_wait(uint64_t now, uint64_t wait); /* how long the loop may sleep, at most wait */
void resume_drops(int on);                         /* start and stop cutting at --drop-rate */

/* report.c */
typedef struct {
  sample start, loggedin, end, win0, win1;
} phases; /* samples at the start, after the login, at the end; around the measured window */

typedef struct {
  int login_ok, login_failed, usable;
  double login_s, login_cpu, login_aux_cpu, login_my_cpu, win_s, scpu, acpu, mycpu, other, spin;
} figures;

int report(figures *g, phases *srv, phases *aux); /* exit status */
#endif
