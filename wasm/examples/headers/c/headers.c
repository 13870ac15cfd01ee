// The function of ../main.go in C: the same configuration, the same answers,
// in a hundredth of the size. Build it with
//
//	clang --target=wasm32-wasi -O2 -mexec-model=reactor -Wl,-s -o headers.wasm wasm/examples/headers/c/headers.c

#include "../../guest/c/guest.h"

// The configuration. It is read once, when a machine starts.
static struct {
	text name, value;
} *fields;
static text *removed, *origins;
static size_t field_count, removed_count, origin_count;
static bool everyone, cookies;
static text methods = T("GET, HEAD, POST"), headers, expose, max_age = T("600");

// grown makes room for one more element.
static void *grown(void *list, size_t count, size_t size) {
	list = realloc(list, (count + 1) * size);
	if (!list)
		abort();
	return list;
}

// token tells whether t can be a field's name (RFC 9110, 5.6.2).
static bool token(text t) {
	for (size_t i = 0; i < t.size; i++) {
		char c = t.at[i] | 0x20;
		if ((c < 'a' || c > 'z') && (t.at[i] < '0' || t.at[i] > '9') && (!t.at[i] || !strchr("!#$%&'*+-.^_`|~", t.at[i])))
			return false;
	}
	return t.size > 0;
}

// rule takes one line of the configuration.
static const char *rule(text line) {
	bool found;
	uint64_t n;
	if (line.at[0] == '-') {
		text name = {line.at + 1, line.size - 1};
		if (!token(name))
			return "not -Name";
		removed = grown(removed, removed_count, sizeof *removed);
		removed[removed_count++] = name;
		return NULL;
	}
	text value = line, name = lowered(trimmed(cut(&value, ':', &found)));
	value = trimmed(value);
	if (!found || !token(name))
		return "not Name: value";
	if (same(name, T("cors"))) {
		for (text one = word(&value); one.size; one = word(&value)) {
			origins = grown(origins, origin_count, sizeof *origins);
			origins[origin_count++] = one;
			everyone |= same(one, T("*"));
		}
	} else if (same(name, T("cors-methods"))) {
		methods = value;
	} else if (same(name, T("cors-headers"))) {
		headers = value;
	} else if (same(name, T("cors-expose"))) {
		expose = value;
	} else if (same(name, T("cors-max-age"))) {
		if (!number(value, INT32_MAX, &n))
			return "not a number of seconds";
		max_age = value;
	} else if (same(name, T("cors-credentials"))) {
		if (!same(value, T("true")) && !same(value, T("false")))
			return "neither true nor false";
		cookies = same(value, T("true"));
	} else if (begins(name, T("cors-"))) {
		return "no such setting";
	} else {
		fields = grown(fields, field_count, sizeof *fields);
		fields[field_count].name = name;
		fields[field_count++].value = value;
	}
	return NULL;
}

EXPORT(proxy_on_configure) int configure(unsigned id, unsigned size) {
	(void)id, (void)size;
	if (!configured(rule))
		return false;
	if (everyone && cookies)
		return refuse(T("cors-credentials with cors: * would let every site act for a visitor; name the origins"));
	return true;
}

// allow is what a response says of who may read it; at is NULL if this origin
// may not.
static text allow(text origin) {
	if (everyone)
		return T("*");
	for (size_t i = 0; i < origin_count && origin.at; i++)
		if (same(origins[i], origin))
			return origin;
	return (text){NULL, 0};
}

// request answers preflight requests; all others go on. The answer goes
// through response too.
EXPORT(proxy_on_request_headers) unsigned request(unsigned id, unsigned count, unsigned end) {
	(void)id, (void)count, (void)end;
	forget();
	text origin = field(REQUEST, T("origin"));
	if (!origin_count || !same(field(REQUEST, T(":method")), T("OPTIONS")) || !origin.at || !field(REQUEST, T("access-control-request-method")).at)
		return CONTINUE;
	text list[8] = {T("vary"), T("Access-Control-Request-Method, Access-Control-Request-Headers")};
	size_t n = 2;
	if (allow(origin).at) {
		list[n++] = T("access-control-allow-methods"), list[n++] = methods;
		list[n++] = T("access-control-max-age"), list[n++] = max_age;
		if (headers.size)
			list[n++] = T("access-control-allow-headers"), list[n++] = headers;
	}
	return respond(204, T(""), n, list);
}

// response runs for every response, hits and misses alike.
EXPORT(proxy_on_response_headers) unsigned response(unsigned id, unsigned count, unsigned end) {
	(void)id, (void)count, (void)end;
	forget();
	for (size_t i = 0; i < removed_count; i++)
		remove_field(RESPONSE, removed[i]);
	for (size_t i = 0; i < field_count; i++)
		set_field(RESPONSE, fields[i].name, fields[i].value);
	if (!origin_count)
		return CONTINUE;
	// What the origin says of it is replaced: two answers are none.
	remove_field(RESPONSE, T("access-control-allow-origin"));
	remove_field(RESPONSE, T("access-control-allow-credentials"));
	remove_field(RESPONSE, T("access-control-expose-headers"));
	if (!everyone)
		add_field(RESPONSE, T("vary"), T("Origin")); // what is answered depends on it
	text allowed = allow(field(REQUEST, T("origin")));
	if (!allowed.at)
		return CONTINUE;
	set_field(RESPONSE, T("access-control-allow-origin"), allowed);
	if (cookies)
		set_field(RESPONSE, T("access-control-allow-credentials"), T("true"));
	if (expose.size)
		set_field(RESPONSE, T("access-control-expose-headers"), expose);
	return CONTINUE;
}
