// What an edge function in C needs of proxy-wasm 0.2.1. It needs nothing but
// wasi-libc: copy this file beside a function of your own, and build it with
//
//	clang --target=wasm32-wasi -O2 -mexec-model=reactor -Wl,-s -o function.wasm function.c
//
// A function exports the callbacks that it wants:
//
//	EXPORT(proxy_on_configure) int configure(unsigned id, unsigned size)
//	EXPORT(proxy_on_request_headers) unsigned request(unsigned id, unsigned fields, unsigned end)
//	EXPORT(proxy_on_response_headers) unsigned response(unsigned id, unsigned fields, unsigned end)
//
// Requests share a machine, and its variables. Callbacks never run at once.
// Texts that the node gives are kept until the next call of forget, with which
// a callback begins.

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name)))

// What a callback returns.
enum { CONTINUE = 0, PAUSE = 1 };

// Lists of fields. A request has ":method", ":path", ":authority" and
// ":scheme" too.
enum { REQUEST = 0, RESPONSE = 2 };

enum { LEVEL_ERROR = 4 };

// text is bytes that nothing ends; at is NULL for none.
typedef struct {
	const char *at;
	size_t size;
} text;

#define T(literal) ((text){literal, sizeof(literal) - 1})

IMPORT(proxy_log) unsigned proxy_log(unsigned level, const char *at, size_t size);
IMPORT(proxy_get_buffer_bytes) unsigned proxy_get_buffer_bytes(unsigned kind, size_t start, size_t most, const char **at, size_t *size);
IMPORT(proxy_get_header_map_value) unsigned proxy_get_header_map_value(unsigned list, const char *name, size_t name_size, const char **at, size_t *size);
IMPORT(proxy_replace_header_map_value) unsigned proxy_replace_header_map_value(unsigned list, const char *name, size_t name_size, const char *at, size_t size);
IMPORT(proxy_add_header_map_value) unsigned proxy_add_header_map_value(unsigned list, const char *name, size_t name_size, const char *at, size_t size);
IMPORT(proxy_remove_header_map_value) unsigned proxy_remove_header_map_value(unsigned list, const char *name, size_t name_size);
IMPORT(proxy_set_property) unsigned proxy_set_property(const char *path, size_t path_size, const char *at, size_t size);
IMPORT(proxy_send_local_response) unsigned proxy_send_local_response(unsigned status, const char *details, size_t details_size, const char *body, size_t body_size,
	const char *fields, size_t fields_size, unsigned grpc);

EXPORT(proxy_abi_version_0_2_1) void guest_version(void) {}

// kept are the texts that the node gave during this callback.
static struct guest_kept {
	struct guest_kept *next;
} *guest_kept;

EXPORT(proxy_on_memory_allocate) void *guest_allocate(size_t size) {
	struct guest_kept *k = malloc(sizeof *k + size);
	if (!k)
		return NULL;
	k->next = guest_kept;
	guest_kept = k;
	return k + 1;
}

// forget gives up what the node gave.
static inline void forget(void) {
	while (guest_kept) {
		struct guest_kept *next = guest_kept->next;
		free(guest_kept);
		guest_kept = next;
	}
}

// room is memory that forget gives up; without any the machine ends.
static inline char *room(size_t size) {
	char *at = guest_allocate(size ? size : 1);
	if (!at)
		abort();
	return at;
}

static inline text field(unsigned list, text name) {
	text v = {NULL, 0};
	if (proxy_get_header_map_value(list, name.at, name.size, &v.at, &v.size) != 0)
		return (text){NULL, 0};
	return v.at ? v : T("");
}

static inline bool set_field(unsigned list, text name, text value) {
	return proxy_replace_header_map_value(list, name.at, name.size, value.at, value.size) == 0;
}

static inline bool add_field(unsigned list, text name, text value) {
	return proxy_add_header_map_value(list, name.at, name.size, value.at, value.size) == 0;
}

static inline void remove_field(unsigned list, text name) {
	proxy_remove_header_map_value(list, name.at, name.size);
}

static inline bool set_property(text path, text value) {
	return proxy_set_property(path.at, path.size, value.at, value.size) == 0;
}

static inline bool same(text a, text b) { return a.size == b.size && memcmp(a.at, b.at, a.size) == 0; }

static inline bool begins(text t, text with) { return t.size >= with.size && memcmp(t.at, with.at, with.size) == 0; }

static inline bool space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static inline text trimmed(text t) {
	while (t.size && space(t.at[0]))
		t.at++, t.size--;
	while (t.size && space(t.at[t.size - 1]))
		t.size--;
	return t;
}

// cut takes what stands before the first c off *t, which keeps what is behind
// it; all, and found is false, if there is none.
static inline text cut(text *t, char c, bool *found) {
	const char *end = t->size ? memchr(t->at, c, t->size) : NULL;
	text first = *t;
	if (found)
		*found = end != NULL;
	if (!end) {
		*t = (text){t->at + t->size, 0};
		return first;
	}
	first.size = end - t->at;
	*t = (text){end + 1, t->size - first.size - 1};
	return first;
}

// word takes the next word off *t; its size is 0 at the end.
static inline text word(text *t) {
	*t = trimmed(*t);
	text w = *t;
	w.size = 0;
	while (w.size < t->size && !space(t->at[w.size]))
		w.size++;
	*t = (text){t->at + w.size, t->size - w.size};
	return w;
}

// number reads a decimal number of at most most.
static inline bool number(text t, uint64_t most, uint64_t *n) {
	*n = 0;
	for (size_t i = 0; i < t.size; i++) {
		if (t.at[i] < '0' || t.at[i] > '9' || i == 18)
			return false;
		*n = *n * 10 + (t.at[i] - '0');
	}
	return t.size && *n <= most;
}

// joined puts n texts together, until forget.
static inline text joined(int n, ...) {
	va_list list;
	size_t size = 0;
	va_start(list, n);
	for (int i = 0; i < n; i++)
		size += va_arg(list, text).size;
	va_end(list);
	char *at = room(size);
	text out = {at, size};
	va_start(list, n);
	for (int i = 0; i < n; i++) {
		text t = va_arg(list, text);
		if (t.size)
			memcpy(at, t.at, t.size);
		at += t.size;
	}
	va_end(list);
	return out;
}

// lowered is t in small letters, until forget.
static inline text lowered(text t) {
	char *at = room(t.size);
	for (size_t i = 0; i < t.size; i++)
		at[i] = t.at[i] >= 'A' && t.at[i] <= 'Z' ? t.at[i] + 32 : t.at[i];
	return (text){at, t.size};
}

// cookie returns the request's first cookie of a name; at is NULL without one.
static inline text cookie(text name) {
	text all = field(REQUEST, T("cookie"));
	while (all.size) {
		text value = trimmed(cut(&all, ';', NULL));
		if (same(cut(&value, '=', NULL), name))
			return value;
	}
	return (text){NULL, 0};
}

// respond answers instead of the node, with n texts: names, each with its
// value behind it. A callback returns what respond returns.
static inline unsigned respond(unsigned status, text body, size_t n, const text *fields) {
	size_t size = 4;
	for (size_t i = 0; i < n; i++)
		size += 4 + fields[i].size + 1;
	char *list = room(size), *at = list;
	uint32_t count = n / 2;
	memcpy(at, &count, 4), at += 4;
	for (size_t i = 0; i < n; i++) {
		uint32_t one = fields[i].size;
		memcpy(at, &one, 4), at += 4;
	}
	for (size_t i = 0; i < n; i++) {
		memcpy(at, fields[i].at, fields[i].size);
		at += fields[i].size;
		*at++ = 0;
	}
	proxy_send_local_response(status, NULL, 0, body.at, body.size, list, size, -1);
	return PAUSE;
}

// refuse logs why a configuration is none, and returns false.
static inline bool refuse(text why) {
	proxy_log(LEVEL_ERROR, why.at, why.size);
	return false;
}

// configured gives rule each line of the configuration that is neither empty
// nor a comment (#). What rule returns, if it is not NULL, is why the line is
// none: it is logged with the line's number, and configured returns false. The
// lines are kept for ever.
static inline bool configured(const char *(*rule)(text line)) {
	text all = {NULL, 0};
	proxy_get_buffer_bytes(7, 0, INT32_MAX, &all.at, &all.size);
	for (unsigned n = 1; all.size; n++) {
		text line = trimmed(cut(&all, '\n', NULL));
		if (!line.size || line.at[0] == '#')
			continue;
		const char *why = rule(line);
		if (!why)
			continue;
		char digits[10];
		size_t d = sizeof digits;
		for (unsigned rest = n; d && (rest || d == sizeof digits); rest /= 10)
			digits[--d] = '0' + rest % 10;
		return refuse(joined(6, T("line "), (text){digits + d, sizeof digits - d}, T(": "), (text){why, strlen(why)}, T(": "), line));
	}
	guest_kept = NULL;
	return true;
}
