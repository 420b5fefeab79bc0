/* XMPP over WebSocket (RFC 7395): the handshake, and frames around what the rest of the program writes and reads. */
#include "xload.h"

#include <string.h>

static int ws_raw(sess *s, const char *head, size_t nh, const char *b, size_t n) {
  if (!room_for(s, nh + n))
    return 0;
  memcpy(s->o + s->olen, head, nh);
  memcpy(s->o + s->olen + nh, b, n);
  s->olen += (uint32_t)(nh + n);
  return 1;
}

void ws_begin(sess *s) { /* the answer comes to ws_feed */
  s->ws = WS_ASKED;
  s->wneed = 0;
  s->whn = 0;
  putf(s,
       "GET /xmpp-websocket HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eGxvYWQgbG9hZHMgaXQuLg==\r\n"
       "Sec-WebSocket-Protocol: xmpp\r\n\r\n",
       domain_of(s));
}

static size_t name_end(const char *b, size_t n) { /* of a stanza's name, 0 for anything else */
  if (n > 8 && !memcmp(b, "<message", 8))
    return 8;
  if (n > 9 && !memcmp(b, "<presence", 9))
    return 9;
  return n > 3 && !memcmp(b, "<iq", 3) ? 3 : 0;
}

int ws_put(sess *s, const char *b, size_t n) { /* one message: one element; the mask is zero, which is one */
  static const char ns[] = " xmlns='jabber:client'";
  unsigned char h[8] = {0x81, 0};
  size_t cut = name_end(b, n), all = n + (cut ? sizeof ns - 1 : 0), nh = 6;
  if (all < 126)
    h[1] = (unsigned char)(0x80 | all);
  else {
    h[1] = 0x80 | 126;
    h[2] = (unsigned char)(all >> 8);
    h[3] = (unsigned char)all;
    nh = 8;
  }
  if (!room_for(s, nh + all))
    return 0;
  ws_raw(s, (char *)h, nh, b, cut);
  if (cut)
    ws_raw(s, ns, sizeof ns - 1, "", 0);
  return ws_raw(s, b + cut, n - cut, "", 0);
}

static size_t head_length(const sess *s) { /* of a frame, as far as its beginning tells */
  if (s->whn < 2)
    return 2;
  unsigned l = s->wh[1] & 0x7f;
  return l == 126 ? 4 : l == 127 ? 10 : 2;
}

void ws_feed(sess *s, const char *p, size_t len) {
  if (s->ws == WS_ASKED) { /* the answer is small and comes at once */
    const char *end = memmem(p, len, "\r\n\r\n", 4);
    if (!end || len < 12 || memcmp(p + 9, "101", 3)) {
      kill_sess(s, "no WebSocket there");
      return;
    }
    s->ws = WS_OPEN;
    len -= (size_t)(end + 4 - p);
    p = end + 4;
    new_stream(s);
  }
  while (len && s->fd >= 0) {
    if (s->wneed) {
      size_t k = len < s->wneed ? len : (size_t)s->wneed;
      if ((s->wh[0] & 0x0f) <= 1)
        feed(s, p, k);
      s->wneed -= k;
      p += k;
      len -= k;
      continue;
    }
    if (s->whn == head_length(s))
      s->whn = 0; /* the frame before is over */
    s->wh[s->whn++] = (unsigned char)*p++;
    len--;
    if (s->whn < 2 || s->whn < head_length(s))
      continue;
    s->wneed = s->wh[1] & 0x7f;
    if (s->wneed > 125)
      s->wneed = 0;
    if (s->whn > 2)
      for (size_t i = 2; i < s->whn; i++)
        s->wneed = s->wneed << 8 | s->wh[i];
    if ((s->wh[0] & 0x0f) == 8) {
      lost(s, "WebSocket closed by server");
      return;
    }
  }
}
