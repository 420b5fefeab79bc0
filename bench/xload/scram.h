/* SCRAM (RFC 5802, RFC 7677), client side, for many sessions that share one password. */
#ifndef SCRAM_H
#define SCRAM_H
#include <stddef.h>

enum { SASL_PLAIN, SASL_SCRAM_SHA_1, SASL_SCRAM_SHA_256, SASL_SCRAM_SHA_512 };

extern const char *sasl_names[4];

typedef struct scram scram;

void b64(const unsigned char *p, size_t n, char *o); /* o: 4 * ((n + 2) / 3) + 1 bytes */

/* The salted passwords of earlier runs. Makes a cache file useful again only for the same password. */
void scram_cache_load(const char *path, const char *password);
void scram_cache_save(const char *path, const char *password);

scram *scram_new(int mechanism, const char *user); /* NULL = the mechanism is not built in */
void scram_free(scram *c);
/* out: base64 of client-first-message. */
void scram_first(scram *c, char *out, size_t size);
/* Input buffer: text of <challenge/> or <success/>, base64, collected by the caller's parser. */
void scram_input(scram *c, const char *p, size_t n);
void scram_input_reset(scram *c);
/* Answers the collected challenge: NULL, or what is wrong; out: base64 for <response/> ("" when it is empty). */
const char *scram_challenge(scram *c, const char *password, char *out, size_t size);
/* Checks the server signature, in the collected <success/> or in an earlier challenge: NULL, or what is wrong. */
const char *scram_success(scram *c);
#endif
