/* The way in: stream header, STARTTLS, registration, SASL, bind, XEP-0198 enable or resume, first presence, ping. */
#include "xload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is(const char *a, const char *b) {
  return strcmp(a, b) == 0;
}

void new_stream(sess *s) {
  parser_reset(s);
  if (s->ws) {
    s->depth = 1; /* all that comes stands where children of a stream stand */
    putf(s, "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='%s' version='1.0'/>", domain_of(s));
    return;
  }
  putf(s,
       "%s<stream:stream to='%s' version='1.0' xml:lang='en' xmlns='jabber:client' "
       "xmlns:stream='http://etherx.jabber.org/streams'>",
       opt.nodecl ? "" : "<?xml version='1.0'?>", domain_of(s));
}

/* ------------------------------------------------------------------ SASL */
static void send_auth(sess *s) {
  char enc[400], user[130];
  int n = snprintf(user, sizeof user, "%s%d", opt.prefix, uidx(s));
  s->st = S_AUTH;
  if (opt.sasl != SASL_PLAIN) {
    s->sc = scram_new(opt.sasl, user);
    scram_first(s->sc, enc, sizeof enc);
  } else {
    unsigned char raw[258] = {0}; /* NUL user NUL password */
    memcpy(raw + 1, user, (size_t)n);
    n += 2 + snprintf((char *)raw + n + 2, 120, "%s", opt.pass);
    b64(raw, (size_t)n, enc);
  }
  putf(s, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='%s'>%s</auth>", sasl_names[opt.sasl], enc);
}

static void challenge(sess *s) {
  char out[1800];
  if (s->st != S_AUTH || !s->sc)
    return;
  const char *bad = scram_challenge(s->sc, opt.pass, out, sizeof out);
  if (bad) {
    note_err("SCRAM: %s", bad);
    kill_sess(s, "SCRAM");
    return;
  }
  putf(s, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>%s</response>", out);
}

static void success(sess *s) {
  if (s->st != S_AUTH)
    return;
  if (s->sc) {
    const char *bad = scram_success(s->sc);
    if (bad) {
      note_err("SCRAM: %s", bad);
      kill_sess(s, "SCRAM");
      return;
    }
    scram_free(s->sc);
    s->sc = NULL;
  }
  s->authed = 1;
  s->st = S_FEAT;
  new_stream(s);
}

/* ------------------------------------------------------------------ bind and after */
static void ready(sess *s) {
  s->st = S_READY;
  n_inflight--;
  n_ready++;
  if (s->r && s->r->active)
    resume_after_login(s);
  else
    h_add(&h_login, now_ns() - s->t0);
}

static void after_bind(sess *s) {
  if (opt.sm && !s->sm) {
    s->st = S_SM;
    putf(s, "<enable xmlns='urn:xmpp:sm:3'%s/>", opt.smresume ? " resume='true'" : "");
    return;
  }
  if (opt.roster || opt.mode == M_PRES)
    put_stanza(s, "<iq type='get' id='ro'><query xmlns='jabber:iq:roster'/></iq>", 61);
  put_stanza(s, "<presence/>", 11);
  s->online = 1;
  s->avail_ns = now_ns();
  if (!opt.noping) {
    char b[400];
    int n = snprintf(b, sizeof b, "<iq type='get' id='rdy' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", domain_of(s));
    put_stanza(s, b, (size_t)n);
    s->st = S_WAIT;
  } else
    ready(s);
}

int login_iq(sess *s) {
  if (s->st == S_REG && is(s->id, "reg")) {
    if (is(s->type, "result"))
      n_reg_ok++;
    else
      n_reg_conf++;
    send_auth(s);
    return 1;
  }
  if (s->st == S_BIND && is(s->id, "b1")) {
    if (!is(s->type, "result"))
      kill_sess(s, "bind refused");
    else
      after_bind(s);
    return 1;
  }
  if (s->st == S_WAIT && is(s->id, "rdy")) {
    ready(s);
    return 1;
  }
  return 0;
}

static void features(sess *s) {
  if (s->st != S_FEAT)
    return;
  if (opt.starttls && !s->tls) {
    s->st = S_STLS;
    putf(s, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
  } else if (!s->authed) {
    if (opt.reg && !(s->r && s->r->active)) {
      s->st = S_REG;
      putf(s,
           "<iq type='set' id='reg'><query "
           "xmlns='jabber:iq:register'><username>%s%d</username><password>%s</password></query></iq>",
           opt.prefix, uidx(s), opt.pass);
    } else
      send_auth(s);
  } else if (s->r && s->r->active && s->r->id[0])
    resume_request(s);
  else {
    s->st = S_BIND;
    putf(s, "<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq>",
         opt.res);
  }
}

static void enabled(sess *s) {
  if (s->st != S_SM)
    return;
  if (s->r && (!(s->flags & F_RESUME) || !s->r->id[0])) {
    kill_sess(s, "the server does not offer resumption");
    return;
  }
  s->sm = 1;
  s->sm_in = s->sm_acked = 0;
  after_bind(s);
}

void login_step(sess *s) {
  switch (s->top) {
    case K_FEATURES: features(s); return;
    case K_PROCEED:
#ifndef NOTLS
      if (s->st != S_STLS)
        return;
      parser_reset(s);
      tls_start(s);
#endif
      return;
    case K_CHALLENGE: challenge(s); return;
    case K_SUCCESS: success(s); return;
    case K_FAILURE:
      if (is(s->cond, "temporary-auth-failure")) {
        lost(s, "temporary authentication failure");
        return;
      }
      note_err("auth/tls failure: %s", s->cond);
      kill_sess(s, "failure");
      return;
    case K_ENABLED: enabled(s); return;
    case K_RESUMED:
      if (s->st == S_RESUME)
        resume_done(s);
      return;
    case K_FAILED:
      if (s->st == S_RESUME)
        resume_refused(s);
      else
        kill_sess(s, "XEP-0198 refused");
      return;
    default: return;
  }
}
