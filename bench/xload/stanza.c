/* What a received stanza does. */
#include "xload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is(const char *a, const char *b) {
  return strcmp(a, b) == 0;
}

void stanza(sess *s) {
  if (s->sm && s->top >= K_MESSAGE && s->top <= K_IQ)
    s->sm_in++;
  switch (s->top) {
    case K_MESSAGE:
      if (is(s->type, "error")) {
        cnt.bounce++;
        note_err("message bounced, from %s", s->from);
      } else if ((s->flags & F_HAVEBODY) && !memcmp(s->body, "XL:", 3))
        got_payload(s, now_ns());
      else if (s->flags & F_HAVEBODY)
        cnt.foreign++;
      return;
    case K_PRESENCE:
      if (opt.mode == M_PRES) {
        if (is(s->type, "subscribe")) {
          char b[300];
          int n = snprintf(b, sizeof b, "<presence to='%s' type='subscribed'/>", s->from);
          put_stanza(s, b, (size_t)n);
        } else if (is(s->type, "subscribed"))
          s->subs++;
        else if ((s->flags & F_HAVEBODY) && !memcmp(s->body, "XL:", 3)) {
          char me[64];
          int n = snprintf(me, sizeof me, "%s%d@", opt.prefix, uidx(s));
          if (strncmp(s->from, me, (size_t)n))
            got_payload(s, now_ns());
        }
      } else if (opt.mode == M_MUC) {
        if (s->flags & F_NEWROOM) {
          char b[400];
          char rj[96];
          snprintf(rj, sizeof rj, "%s", s->from);
          char *sl = strchr(rj, '/');
          if (sl)
            *sl = 0;
          int n = snprintf(b, sizeof b,
                           "<iq type='set' id='cfg' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'><x "
                           "xmlns='jabber:x:data' type='submit'/></query></iq>",
                           rj);
          put_stanza(s, b, (size_t)n);
          if (!s->joined) {
            s->joined = 2;
          }
        } else if ((s->flags & F_SELF) && !s->joined) {
          s->joined = 1;
          n_joined++;
        }
        if (is(s->type, "error"))
          note_err("presence error from %s", s->from);
      }
      return;
    case K_IQ:
      if (is(s->id, "cfg") && s->joined == 2) {
        s->joined = 1;
        n_joined++;
        if (is(s->type, "error"))
          note_err("room config refused");
        return;
      }
      if (login_iq(s))
        return;
      if (is(s->type, "get") || is(s->type, "set")) {
        char b[400];
        int n =
            snprintf(b, sizeof b, s->from[0] ? "<iq type='result' id='%s' to='%s'/>" : "<iq type='result' id='%s'/>",
                     s->id, s->from);
        put_stanza(s, b, (size_t)n);
      }
      return;
    case K_R: putf(s, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", s->sm_in); return;
    case K_A:
      cnt.acks++;
      if (s->r && s->sm)
        resume_ack(s, (uint32_t)strtoul(s->hh, NULL, 10));
      return;
    case K_ERROR:
      if (is(s->cond, "system-shutdown") || is(s->cond, "see-other-host")) {
        lost(s, "the server shuts down");
        return;
      } /* may be resumed elsewhere */
      note_err("stream error: %s", s->cond);
      kill_sess(s, "stream error");
      return;
    default: login_step(s);
  }
}
