/* Bytes -> stanzas: a tokenizer that may be fed any number of bytes at a time. It keeps what the generator needs
 * (names, a few attributes, the start of a body) and calls stanza() at the end of each child of the stream. */
#include <stdio.h>
#include <string.h>

#include "xload.h"

enum { T_TEXT, T_LT, T_NAME, T_TAG, T_ATTR, T_EQ, T_VAL, T_SLASH, T_CLOSE, T_PI, T_BANG };

enum { C_NONE, C_TYPE, C_ID, C_FROM, C_H, C_CODE, C_SMID, C_RESUME };

static int is(const char *a, const char *b) {
  return strcmp(a, b) == 0;
}

static int kind(const char *n) { /* of a child of the stream */

  static const struct {
    const char *name;
    int kind;
  } kinds[] = {{"message", K_MESSAGE},
               {"presence", K_PRESENCE},
               {"iq", K_IQ},
               {"r", K_R},
               {"a", K_A},
               {"features", K_FEATURES},
               {"error", K_ERROR},
               {"success", K_SUCCESS},
               {"failure", K_FAILURE},
               {"proceed", K_PROCEED},
               {"enabled", K_ENABLED},
               {"failed", K_FAILED},
               {"challenge", K_CHALLENGE},
               {"resumed", K_RESUMED}};

  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (is(n, kinds[i].name))
      return kinds[i].kind;
  return K_OTHER;
}

static void tag_name(sess *s) {
  s->name[s->nlen] = 0;
  s->depth++;
  const char *n = strrchr(s->name, ':'); /* any prefix will do: stream:features, ns0:proceed */
  n = n ? n + 1 : s->name;
  if (s->depth == 2) {
    s->flags = 0;
    s->type[0] = s->id[0] = s->from[0] = s->hh[0] = s->body[0] = s->cond[0] = 0;
    s->blen = 0;
    s->top = (uint8_t)kind(n);
    if (s->sc && (s->top == K_CHALLENGE || s->top == K_SUCCESS)) {
      scram_input_reset(s->sc);
      s->capbody = 1;
    }
  } else if (s->depth == 4 && s->st == S_BIND && s->top == K_IQ && is(n, "jid")) {
    s->capbody = 1;
    s->blen = 0;
    s->jid[0] = 0;
  } else if (s->depth == 3) {
    if ((s->top == K_MESSAGE && is(n, "body")) || (s->top == K_PRESENCE && is(n, "status"))) {
      s->capbody = 1;
      s->blen = 0;
    }
    if ((s->top == K_ERROR || s->top == K_FAILURE || s->top == K_FAILED) && !s->cond[0])
      snprintf(s->cond, sizeof s->cond, "%s", n);
  }
}

static int tag_end(sess *s) { /* an element closed; 1 if the parser was reset or the session died */
  if (s->capbody && s->depth == 3) {
    s->body[s->blen] = 0;
    s->capbody = 0;
    s->flags |= F_HAVEBODY;
  } else if (s->capbody && (s->depth == 2 || (s->depth == 4 && s->st == S_BIND)))
    s->capbody = 0;
  if (s->depth)
    s->depth--;
  if (s->depth == 1) {
    stanza(s);
    return s->st == S_DEAD || s->depth == 0;
  }
  if (s->depth == 0) {
    lost(s, "stream closed by server");
    return 1;
  }
  return 0;
}

static void attr_sel(sess *s) {
  s->cap = C_NONE;
  s->vlen = 0;
  if (s->depth == 2) {
    if (s->alen == 4 && !memcmp(s->an, "type", 4))
      s->cap = C_TYPE;
    else if (s->alen == 2 && !memcmp(s->an, "id", 2))
      s->cap = C_ID;
    else if (s->alen == 4 && !memcmp(s->an, "from", 4))
      s->cap = C_FROM;
    else if (s->alen == 1 && s->an[0] == 'h')
      s->cap = C_H;
    if (s->r && s->top == K_ENABLED) {
      if (s->cap == C_ID)
        s->cap = C_SMID;
      else if (s->alen == 6 && !memcmp(s->an, "resume", 6))
        s->cap = C_RESUME;
    }
  } else if (s->depth == 4 && s->top == K_PRESENCE && s->alen == 4 && !memcmp(s->an, "code", 4))
    s->cap = C_CODE;
}

static void attr_val(sess *s, const char *p, size_t n, int end) {
  char *d;
  size_t m;
  switch (s->cap) {
    case C_TYPE:
      d = s->type;
      m = sizeof s->type;
      break;
    case C_ID:
      d = s->id;
      m = sizeof s->id;
      break;
    case C_FROM:
      d = s->from;
      m = sizeof s->from;
      break;
    case C_H:
      d = s->hh;
      m = sizeof s->hh;
      break;
    case C_CODE:
      d = s->code;
      m = sizeof s->code;
      break;
    case C_SMID:
      d = s->r->id;
      m = sizeof s->r->id;
      break;
    case C_RESUME:
      d = s->code;
      m = sizeof s->code;
      break;
    default: return;
  }
  if (n > m - 1 - s->vlen)
    n = m - 1 - s->vlen;
  memcpy(d + s->vlen, p, n);
  s->vlen = (uint16_t)(s->vlen + n);
  d[s->vlen] = 0;
  if (end && s->cap == C_H)
    s->flags |= F_HAVEH;
  if (end && s->cap == C_RESUME && (is(s->code, "true") || is(s->code, "1")))
    s->flags |= F_RESUME;
  if (end && s->cap == C_CODE) {
    if (is(s->code, "110"))
      s->flags |= F_SELF;
    else if (is(s->code, "201"))
      s->flags |= F_NEWROOM;
  }
}

void feed(sess *s, const char *p, size_t len) {
  if (opt.trace && s == S)
    fprintf(stderr, "<< %.*s\n", (int)len, p);
  const char *e = p + len, *q;
  while (p < e)
    switch (s->ps) {
      case T_TEXT:
        q = memchr(p, '<', (size_t)(e - p));
        if (s->capbody && s->depth == 2)
          scram_input(s->sc, p, (size_t)((q ? q : e) - p));
        else if (s->capbody && s->depth == 4) {
          size_t n = (size_t)((q ? q : e) - p);
          if (n > sizeof s->jid - 1 - s->blen)
            n = sizeof s->jid - 1 - s->blen;
          memcpy(s->jid + s->blen, p, n);
          s->blen = (uint16_t)(s->blen + n);
          s->jid[s->blen] = 0;
        } else if (s->capbody && s->depth == 3) {
          size_t n = (size_t)((q ? q : e) - p);
          if (n > sizeof s->body - 1 - s->blen)
            n = sizeof s->body - 1 - s->blen;
          memcpy(s->body + s->blen, p, n);
          s->blen = (uint16_t)(s->blen + n);
        }
        if (!q)
          return;
        p = q + 1;
        s->ps = T_LT;
        break;
      case T_LT:
        if (*p == '/') {
          s->ps = T_CLOSE;
          p++;
        } else if (*p == '?') {
          s->ps = T_PI;
          p++;
        } else if (*p == '!') {
          s->ps = T_BANG;
          p++;
        } else {
          s->ps = T_NAME;
          s->nlen = 0;
        }
        break;
      case T_NAME:
        while (p < e && *p != '>' && *p != '/' && *p != ' ' && *p != '\n' && *p != '\t' && *p != '\r') {
          if (s->nlen < sizeof s->name - 1)
            s->name[s->nlen++] = *p;
          p++;
        }
        if (p < e) {
          tag_name(s);
          s->ps = T_TAG;
        }
        break;
      case T_TAG:
        if (*p == '>')
          s->ps = T_TEXT;
        else if (*p == '/')
          s->ps = T_SLASH;
        else if (*p != ' ' && *p != '\n' && *p != '\t' && *p != '\r') {
          s->alen = 0;
          s->ps = T_ATTR;
          break;
        }
        p++;
        break;
      case T_ATTR:
        while (p < e && *p != '=' && *p != ' ') {
          if (s->alen < sizeof s->an)
            s->an[s->alen] = *p;
          if (s->alen < 255)
            s->alen++;
          p++;
        }
        if (p < e)
          s->ps = T_EQ;
        break;
      case T_EQ:
        if (*p == '\'' || *p == '"') {
          s->quote = (uint8_t)*p;
          attr_sel(s);
          s->ps = T_VAL;
        }
        p++;
        break;
      case T_VAL:
        q = memchr(p, s->quote, (size_t)(e - p));
        if (s->cap)
          attr_val(s, p, (size_t)((q ? q : e) - p), q != NULL);
        if (!q)
          return;
        p = q + 1;
        s->ps = T_TAG;
        break;
      case T_SLASH:
        p++;
        s->ps = T_TEXT;
        if (tag_end(s))
          return;
        break;
      case T_CLOSE:
        q = memchr(p, '>', (size_t)(e - p));
        if (!q)
          return;
        p = q + 1;
        s->ps = T_TEXT;
        if (tag_end(s))
          return;
        break;
      default: /* T_PI, T_BANG */
        q = memchr(p, '>', (size_t)(e - p));
        if (!q)
          return;
        p = q + 1;
        s->ps = T_TEXT;
    }
}
