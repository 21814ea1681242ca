/* Peers of `cargo bench -p sharding` that are libraries in C. It reads lines "TASK LENGTH" (length in
 * bytes of secret or data), does the task for one turn, and answers a line: megabytes (10^6 bytes) of
 * secret per second, or why it cannot. The bench compiles it with the libraries that are there and
 * runs it on its own core, a turn at a time.
 *
 * Everything is 3 of 5. A library is spared what is not its own: gfshare gets the cheapest generator
 * there is instead of one that is secure, ISA-L gets none and multiplies only. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if __has_include(<libgfshare.h>)
#include <libgfshare.h>
#define HAS_GFSHARE 1
#endif
#if __has_include(<isa-l.h>)
#include <isa-l.h>
#define HAS_ISAL 1
#endif

enum { K = 3, N = 5, MAX = N + K };
static const double TURN = 0.02;

static unsigned char *buffers[MAX];
static size_t buffers_len;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* MAX buffers of the length, touched, aligned to cache lines as ours may not be. */
static int prepare(size_t len)
{
	if (buffers_len == len)
		return 1;
	for (int i = 0; i < MAX; i++) {
		free(buffers[i]);
		buffers[i] = aligned_alloc(64, (len + 63) / 64 * 64);
		if (!buffers[i])
			return 0;
		memset(buffers[i], i * 37 + 1, len);
	}
	buffers_len = len;
	return 1;
}

#ifdef HAS_GFSHARE
static void cheap(unsigned char *to, unsigned int len)
{
	static uint64_t state = 88172645463325252u;
	for (unsigned int at = 0; at + 8 <= len; at += 8) {
		state ^= state << 13, state ^= state >> 7, state ^= state << 17;
		memcpy(to + at, &state, 8);
	}
}

static void gfshare_split(size_t len)
{
	static gfshare_ctx *ctx;
	static size_t ctx_len;
	if (ctx_len != len) {
		unsigned char numbers[N] = { 1, 2, 3, 4, 5 };
		if (ctx)
			gfshare_ctx_free(ctx);
		gfshare_fill_rand = cheap;
		ctx = gfshare_ctx_init_enc(numbers, N, K, len);
		ctx_len = len;
	}
	gfshare_ctx_enc_setsecret(ctx, buffers[0]);
	for (int i = 0; i < N; i++)
		gfshare_ctx_enc_getshare(ctx, i, buffers[i + 1]);
}

static void gfshare_combine(size_t len)
{
	static gfshare_ctx *ctx;
	static size_t ctx_len;
	if (ctx_len != len) {
		unsigned char numbers[K] = { 3, 4, 5 };
		if (ctx)
			gfshare_ctx_free(ctx);
		ctx = gfshare_ctx_init_dec(numbers, K, len);
		ctx_len = len;
	}
	for (int i = 0; i < K; i++)
		gfshare_ctx_dec_giveshare(ctx, i, buffers[i + 1]);
	gfshare_ctx_dec_extract(ctx, buffers[0]);
}
#endif

#ifdef HAS_ISAL
/* As many outputs as asked of three inputs, by constants none of which is 0 or 1. */
static void isal(size_t len, int outputs)
{
	static unsigned char tables[N][32 * K * N];
	static int ready[N];
	if (!ready[outputs - 1]) {
		unsigned char matrix[(N + K) * K];
		gf_gen_cauchy1_matrix(matrix, N + K, K);
		ec_init_tables(K, outputs, matrix + K * K, tables[outputs - 1]);
		ready[outputs - 1] = 1;
	}
	ec_encode_data(len, K, outputs, tables[outputs - 1], buffers, buffers + K);
}

static void isal_split(size_t len) { isal(len, N); }
static void isal_combine(size_t len) { isal(len, 1); }
static void isal_encode(size_t len) { isal(len / K, N - K); }
#endif

static const struct { const char *name; void (*work)(size_t); } TASKS[] = {
#ifdef HAS_GFSHARE
	{ "gfshare-split", gfshare_split },
	{ "gfshare-combine", gfshare_combine },
#endif
#ifdef HAS_ISAL
	{ "isal-split", isal_split },
	{ "isal-combine", isal_combine },
	{ "isal-encode", isal_encode },
#endif
};

static void answer(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof TASKS / sizeof *TASKS; i++) {
		if (strcmp(TASKS[i].name, name))
			continue;
		double start, elapsed;
		size_t calls = 0;
		if (!prepare(len)) {
			puts("no memory");
			return;
		}
		start = now();
		do {
			TASKS[i].work(len);
			calls++;
			elapsed = now() - start;
		} while (elapsed < TURN);
		printf("%.3f\n", len * calls / elapsed / 1e6);
		return;
	}
	puts("its library is not installed");
}

int main(void)
{
	char name[32];
	size_t len;
	while (scanf("%31s %zu", name, &len) == 2) {
		answer(name, len);
		fflush(stdout);
	}
	return 0;
}
