/* SCRAM (RFC 5802, RFC 7677), client side, for many sessions that share one password.
 *
 * The dear step is PBKDF2: 4096 or more rounds for each new pair of salt and iteration count. Every account has its own
 * salt, so the first login of each account pays for it; the salted password is then kept by (hash, iterations, salt),
 * in memory for later logins and resumptions of this run, in a file (--scram-cache) for later runs. */
#define _GNU_SOURCE
#include "scram.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *sasl_names[4] = {"PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"};

void b64(const unsigned char *p, size_t n, char *o) {
  static const char t[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (; n > 2; n -= 3, p += 3) {
    *o++ = t[p[0] >> 2];
    *o++ = t[(p[0] & 3) << 4 | p[1] >> 4];
    *o++ = t[(p[1] & 15) << 2 | p[2] >> 6];
    *o++ = t[p[2] & 63];
  }
  if (n) {
    *o++ = t[p[0] >> 2];
    *o++ = t[(p[0] & 3) << 4 | (n == 2 ? p[1] >> 4 : 0)];
    *o++ = n == 2 ? t[(p[1] & 15) << 2] : '=';
    *o++ = '=';
  }
  *o = 0;
}

#ifdef NOTLS
scram *scram_new(int mechanism, const char *user) {
  (void)mechanism;
  (void)user;
  return NULL;
}

void scram_free(scram *c) {
  (void)c;
}

void scram_first(scram *c, char *out, size_t size) {
  (void)c;
  (void)out;
  (void)size;
}

void scram_input(scram *c, const char *p, size_t n) {
  (void)c;
  (void)p;
  (void)n;
}

void scram_input_reset(scram *c) {
  (void)c;
}

const char *scram_challenge(scram *c, const char *password, char *out, size_t size) {
  (void)c;
  (void)password;
  (void)out;
  (void)size;
  return "built without OpenSSL";
}

const char *scram_success(scram *c) {
  (void)c;
  return "built without OpenSSL";
}

void scram_cache_load(const char *path, const char *password) {
  (void)path;
  (void)password;
}

void scram_cache_save(const char *path, const char *password) {
  (void)path;
  (void)password;
}
#else
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#define MAX_SALT 64
#define MAX_TEXT 2048
#define MAX_ROUNDS 1000000

struct scram {
  int mech, signed_ok;
  char nonce[33], first_bare[200];
  char in[MAX_TEXT];
  size_t in_len;
  unsigned char signature[EVP_MAX_MD_SIZE]; /* what the server has to send */
  int have_signature;
};

static const EVP_MD *md_of(int mech) {
  return mech == SASL_SCRAM_SHA_1 ? EVP_sha1() : mech == SASL_SCRAM_SHA_256 ? EVP_sha256() : EVP_sha512();
}

/* ------------------------------------------------------------------ the cache */
typedef struct {
  int mech, rounds, salt_len; /* mech 0 = an empty slot */
  unsigned char salt[MAX_SALT], salted[EVP_MAX_MD_SIZE];
} slot;

static slot *table;
static size_t table_cap, table_n;
static int table_changed;

static size_t slot_of(slot *t, size_t cap, int mech, int rounds, const unsigned char *salt, int salt_len) {
  uint64_t h = 1469598103934665603ull ^ (uint64_t)mech ^ (uint64_t)rounds << 8;
  for (int i = 0; i < salt_len; i++)
    h = (h ^ salt[i]) * 1099511628211ull;
  size_t i = (size_t)(h ^ h >> 29) & (cap - 1);
  while (t[i].mech && !(t[i].mech == mech && t[i].rounds == rounds && t[i].salt_len == salt_len &&
                        !memcmp(t[i].salt, salt, (size_t)salt_len)))
    i = (i + 1) & (cap - 1);
  return i;
}

static slot *cache_slot(int mech, int rounds, const unsigned char *salt, int salt_len) { /* the entry, empty if new */
  if (table_n * 2 >= table_cap) {
    size_t cap = table_cap ? table_cap * 2 : 256;
    slot *t = calloc(cap, sizeof *t);
    if (!t)
      abort();
    for (size_t i = 0; i < table_cap; i++)
      if (table[i].mech)
        t[slot_of(t, cap, table[i].mech, table[i].rounds, table[i].salt, table[i].salt_len)] = table[i];
    free(table);
    table = t;
    table_cap = cap;
  }
  return &table[slot_of(table, table_cap, mech, rounds, salt, salt_len)];
}

static void cache_fill(slot *e, int mech, int rounds, const unsigned char *salt, int salt_len) {
  e->mech = mech;
  e->rounds = rounds;
  e->salt_len = salt_len;
  memcpy(e->salt, salt, (size_t)salt_len);
  table_n++;
}

static void hex(const unsigned char *p, int n, char *o) {
  for (int i = 0; i < n; i++)
    sprintf(o + 2 * i, "%02x", p[i]);
}

static int unhex(const char *s, unsigned char *o, int max) { /* bytes, or -1 */
  int n = 0;
  for (unsigned v; *s; s += 2, n++) {
    if (n == max || sscanf(s, "%2x", &v) != 1 || !s[1])
      return -1;
    o[n] = (unsigned char)v;
  }
  return n;
}

/* First line: which password this is for (a salted hash of it); then "mechanism rounds salt salted-password", in hex.
 */
static void cache_mark(const char *password, char *o) {
  unsigned char d[32];
  unsigned n = sizeof d;
  HMAC(EVP_sha256(), "xload scram cache 1", 19, (const unsigned char *)password, strlen(password), d, &n);
  hex(d, 32, o);
}

void scram_cache_load(const char *path, const char *password) {
  char line[1024], mark[65], salt_hex[2 * MAX_SALT + 1], salted_hex[2 * EVP_MAX_MD_SIZE + 1];
  FILE *f = fopen(path, "r");
  if (!f)
    return;
  cache_mark(password, mark);
  if (fgets(line, sizeof line, f) && !strncmp(line, mark, 64))
    while (fgets(line, sizeof line, f)) {
      int mech, rounds;
      unsigned char salt[MAX_SALT], salted[EVP_MAX_MD_SIZE];
      if (sscanf(line, "%d %d %128s %128s", &mech, &rounds, salt_hex, salted_hex) != 4)
        continue;
      if (mech < SASL_SCRAM_SHA_1 || mech > SASL_SCRAM_SHA_512)
        continue;
      int n = unhex(salt_hex, salt, MAX_SALT), size = EVP_MD_get_size(md_of(mech));
      if (n < 1 || unhex(salted_hex, salted, EVP_MAX_MD_SIZE) != size)
        continue;
      slot *e = cache_slot(mech, rounds, salt, n);
      if (!e->mech)
        cache_fill(e, mech, rounds, salt, n);
      memcpy(e->salted, salted, (size_t)size);
    }
  fclose(f);
}

void scram_cache_save(const char *path, const char *password) {
  char mark[65], salt_hex[2 * MAX_SALT + 1], salted_hex[2 * EVP_MAX_MD_SIZE + 1];
  if (!table_changed)
    return;
  FILE *f = fopen(path, "w");
  if (!f) {
    fprintf(stderr, "xload: cannot write %s\n", path);
    return;
  }
  cache_mark(password, mark);
  fprintf(f, "%s\n", mark);
  for (size_t i = 0; i < table_cap; i++) {
    slot *e = &table[i];
    if (!e->mech)
      continue;
    hex(e->salt, e->salt_len, salt_hex);
    hex(e->salted, EVP_MD_get_size(md_of(e->mech)), salted_hex);
    fprintf(f, "%d %d %s %s\n", e->mech, e->rounds, salt_hex, salted_hex);
  }
  fclose(f);
}

/* ------------------------------------------------------------------ the exchange */
static int unb64(const char *s, size_t n, unsigned char *o, int max) { /* bytes, or -1 */
  if (n % 4 || (int)(n / 4 * 3) > max)
    return -1;
  int k = EVP_DecodeBlock(o, (const unsigned char *)s, (int)n);
  for (int i = 0; k > 0 && i < 2 && n && s[n - 1] == '='; i++, n--)
    k--; /* EVP_DecodeBlock counts the padding */
  return k;
}

static void hmac(const EVP_MD *md, const unsigned char *key, const void *text, size_t n, unsigned char *out) {
  unsigned len = EVP_MAX_MD_SIZE;
  HMAC(md, key, EVP_MD_get_size(md), text, n, out, &len);
}

scram *scram_new(int mechanism, const char *user) {
  unsigned char raw[24];
  scram *c = calloc(1, sizeof *c);
  if (!c || RAND_bytes(raw, sizeof raw) != 1)
    abort();
  c->mech = mechanism;
  b64(raw, sizeof raw, c->nonce);
  snprintf(c->first_bare, sizeof c->first_bare, "n=%s,r=%s", user, c->nonce);
  return c;
}

void scram_free(scram *c) {
  free(c);
}

void scram_first(scram *c, char *out, size_t size) {
  char m[220];
  int n = snprintf(m, sizeof m, "n,,%s", c->first_bare); /* no channel binding: "n" */
  if (size < (size_t)n * 4 / 3 + 5)
    abort();
  b64((unsigned char *)m, (size_t)n, out);
}

void scram_input_reset(scram *c) {
  c->in_len = 0;
}

void scram_input(scram *c, const char *p, size_t n) {
  if (n > sizeof c->in - 1 - c->in_len)
    n = sizeof c->in - 1 - c->in_len;
  memcpy(c->in + c->in_len, p, n);
  c->in_len += n;
}

static const char *check_signature(scram *c, const char *text) {
  unsigned char got[EVP_MAX_MD_SIZE + 3];
  int size = EVP_MD_get_size(md_of(c->mech));
  if (!strncmp(text, "e=", 2))
    return "the server refused the proof";
  if (!c->have_signature || strncmp(text, "v=", 2))
    return "no server signature";
  if (unb64(text + 2, strcspn(text + 2, ","), got, sizeof got) != size ||
      CRYPTO_memcmp(got, c->signature, (size_t)size))
    return "the server signature is wrong";
  c->signed_ok = 1;
  return NULL;
}

static const char *decode_input(scram *c, char *text) { /* text: MAX_TEXT bytes */
  int n = unb64(c->in, c->in_len, (unsigned char *)text, MAX_TEXT - 1);
  if (n < 0 || memchr(text, 0, (size_t)n))
    return "not base64";
  text[n] = 0;
  return NULL;
}

const char *scram_challenge(scram *c, const char *password, char *out, size_t size) {
  char text[MAX_TEXT], final[MAX_TEXT], auth[3 * MAX_TEXT], proof64[2 * EVP_MAX_MD_SIZE];
  unsigned char salt[MAX_SALT + 3], client_key[EVP_MAX_MD_SIZE], stored_key[EVP_MAX_MD_SIZE], sig[EVP_MAX_MD_SIZE],
      server_key[EVP_MAX_MD_SIZE];
  const EVP_MD *md = md_of(c->mech);
  const char *bad = decode_input(c, text);
  out[0] = 0;
  if (bad)
    return bad;
  if (c->have_signature)
    return check_signature(c, text); /* server-final-message in a challenge, then an empty success */
  char *s = strstr(text, ",s="), *i = s ? strstr(s, ",i=") : NULL; /* r=nonce,s=salt,i=rounds (no base64 has a comma) */
  if (strncmp(text, "r=", 2) || !s || !i)
    return "malformed challenge";
  if (strncmp(text + 2, c->nonce, strlen(c->nonce)) || s - text - 2 <= (long)strlen(c->nonce))
    return "the nonce is not ours";
  int rounds = atoi(i + 3), salt_len = unb64(s + 3, (size_t)(i - s - 3), salt, sizeof salt), n = EVP_MD_get_size(md);
  if (rounds < 1 || rounds > MAX_ROUNDS || salt_len < 1 || salt_len > MAX_SALT)
    return "salt or iteration count out of bounds";
  slot *e = cache_slot(c->mech, rounds, salt, salt_len);
  if (!e->mech) {
    if (PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, salt_len, rounds, md, n, e->salted) != 1)
      return "PBKDF2 failed";
    cache_fill(e, c->mech, rounds, salt, salt_len);
    table_changed = 1;
  }
  hmac(md, e->salted, "Client Key", 10, client_key);
  EVP_Digest(client_key, (size_t)n, stored_key, NULL, md, NULL);
  int k = snprintf(final, sizeof final, "c=biws,r=%.*s", (int)(s - text - 2), text + 2); /* biws: base64 of "n,," */
  int a = snprintf(auth, sizeof auth, "%s,%s,%s", c->first_bare, text, final);
  hmac(md, stored_key, auth, (size_t)a, sig);
  hmac(md, e->salted, "Server Key", 10, server_key);
  hmac(md, server_key, auth, (size_t)a, c->signature);
  c->have_signature = 1;
  for (int j = 0; j < n; j++)
    sig[j] ^= client_key[j];
  b64(sig, (size_t)n, proof64);
  k += snprintf(final + k, sizeof final - (size_t)k, ",p=%s", proof64);
  if (k >= (int)sizeof final || size < (size_t)k * 4 / 3 + 5)
    return "challenge too long";
  b64((unsigned char *) final, (size_t)k, out);
  return NULL;
}

const char *scram_success(scram *c) {
  char text[MAX_TEXT];
  if (c->signed_ok && !c->in_len)
    return NULL;
  const char *bad = decode_input(c, text);
  return bad ? bad : check_signature(c, text);
}
#endif
