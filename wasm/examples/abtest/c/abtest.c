// The function of ../main.go in C: the same configuration, the same answers,
// in a hundredth of the size. Build it with
//
//	clang --target=wasm32-wasi -O2 -mexec-model=reactor -Wl,-s -o abtest.wasm wasm/examples/abtest/c/abtest.c

#include <unistd.h>

#include "../../guest/c/guest.h"

// The configuration. It is read once, when a machine starts.
static struct variant {
	text name, prefix;
	uint64_t weight;
} *variants;
static text *paths;
static size_t variant_count, path_count;
static uint64_t total; // of the weights
static text cookie_name = T("ab"), header = T("x-ab"), max_age = T("2592000");

static void *grown(void *list, size_t count, size_t size) {
	list = realloc(list, (count + 1) * size);
	if (!list)
		abort();
	return list;
}

static bool is_name(text t) {
	for (size_t i = 0; i < t.size; i++) {
		char c = t.at[i] | 0x20;
		if ((c < 'a' || c > 'z') && (t.at[i] < '0' || t.at[i] > '9') && t.at[i] != '-' && t.at[i] != '_')
			return false;
	}
	return t.size && t.size <= 64;
}

static const char *add_variant(text words) {
	struct variant v = {.name = word(&words)};
	text weight = word(&words);
	v.prefix = word(&words);
	if (!weight.size || word(&words).size)
		return "not NAME WEIGHT [/PREFIX]";
	if (!is_name(v.name))
		return "not a name of letters, digits, - and _";
	for (size_t i = 0; i < variant_count; i++)
		if (same(variants[i].name, v.name))
			return "there is one of the name already";
	if (!number(weight, 65535, &v.weight))
		return "the weight is not a number from 0 to 65535";
	if (v.prefix.size && (v.prefix.at[0] != '/' || v.prefix.at[v.prefix.size - 1] == '/' || memchr(v.prefix.at, '?', v.prefix.size) || memchr(v.prefix.at, '#', v.prefix.size)))
		return "the prefix is no path, or ends in a slash";
	variants = grown(variants, variant_count, sizeof *variants);
	variants[variant_count++] = v;
	total += v.weight;
	return NULL;
}

// rule takes one line of the configuration.
static const char *rule(text line) {
	bool found;
	uint64_t n;
	text value = line, name = cut(&value, ':', &found);
	value = trimmed(value);
	if (!found)
		return "not NAME: VALUE";
	if (same(name, T("variant")))
		return add_variant(value);
	if (same(name, T("path"))) {
		if (!begins(value, T("/")))
			return "not a path";
		paths = grown(paths, path_count, sizeof *paths);
		paths[path_count++] = value;
	} else if (same(name, T("cookie")) || same(name, T("header"))) {
		if (!is_name(value))
			return "not a name of letters, digits, - and _";
		if (same(name, T("cookie")))
			cookie_name = value;
		else
			header = lowered(value);
	} else if (same(name, T("max-age"))) {
		if (!number(value, INT32_MAX, &n))
			return "not a number of seconds";
		max_age = value;
	} else {
		return "no such setting";
	}
	return NULL;
}

EXPORT(proxy_on_configure) int configure(unsigned id, unsigned size) {
	(void)id, (void)size;
	if (!configured(rule))
		return false;
	return total ? true : refuse(T("no variant has a weight"));
}

static bool tested(text path) {
	for (size_t i = 0; i < path_count; i++)
		if (begins(path, paths[i]))
			return true;
	return !path_count;
}

// remembered is the variant that the visitor's cookie names, or NULL.
static const struct variant *remembered(void) {
	text name = cookie(cookie_name);
	for (size_t i = 0; i < variant_count && name.at; i++)
		if (same(variants[i].name, name))
			return &variants[i];
	return NULL;
}

// drawn is a variant by chance, as the weights have it.
static const struct variant *drawn(void) {
	uint64_t n;
	if (getentropy(&n, sizeof n) != 0)
		abort();
	n %= total;
	for (size_t i = 0; i < variant_count; i++) {
		if (n < variants[i].weight)
			return &variants[i];
		n -= variants[i].weight;
	}
	return variants;
}

// request chooses the variant.
EXPORT(proxy_on_request_headers) unsigned request(unsigned id, unsigned count, unsigned end) {
	(void)id, (void)count, (void)end;
	forget();
	text target = field(REQUEST, T(":path")), rest = target, path = cut(&rest, '?', NULL);
	remove_field(REQUEST, header); // only this function says it
	if (!tested(path))
		return CONTINUE;
	const struct variant *v = remembered();
	if (!v)
		v = drawn();
	set_field(REQUEST, header, v->name);
	if (v->prefix.size)
		set_field(REQUEST, T(":path"), joined(2, v->prefix, target));
	set_property(T("seawall.cache.key"), joined(2, T("ab="), v->name));
	return CONTINUE;
}

// response has a new visitor's client remember what was drawn: the request
// still has the field that request set.
EXPORT(proxy_on_response_headers) unsigned response(unsigned id, unsigned count, unsigned end) {
	(void)id, (void)count, (void)end;
	forget();
	text name = field(REQUEST, header);
	if (!name.size)
		return CONTINUE;
	add_field(RESPONSE, T("vary"), T("Cookie"));
	if (remembered())
		return CONTINUE;
	text secure = same(field(REQUEST, T(":scheme")), T("https")) ? T("; Secure") : T("");
	add_field(RESPONSE, T("set-cookie"), joined(7, cookie_name, T("="), name, T("; Path=/; Max-Age="), max_age, T("; SameSite=Lax"), secure));
	add_field(RESPONSE, T("cache-control"), T("private")); // no cache between may give the cookie to others
	remove_field(RESPONSE, T("cdn-cache-control"));                // which would count for more (RFC 9213)
	return CONTINUE;
}
