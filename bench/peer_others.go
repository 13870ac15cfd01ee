package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The peers' configurations: one worker, the memory that the node has, keep-alive
// to the origin, collapsing and revalidation where they can, an access log as an
// operator would have it. What only a benchmark would set is not set, but for
// the number of requests a connection may carry, which is unbounded for all.

// write makes the files of a peer, by name, below its folder.
func (s *setting) write(files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// launch starts the peer's program.
func (s *setting) launch(args ...string) (*process, error) {
	path, err := s.peer.path()
	if err != nil {
		return nil, err
	}
	return startProcess(s.peer.name, s.dir, s.cores, nil, nil, append([]string{path}, args...)...)
}

// fill puts values in place of their names, written as {name}.
func (s *setting) fill(text string) string {
	host, port, _ := strings.Cut(s.origin, ":")
	return strings.NewReplacer(
		"{dir}", s.dir, "{origin}", s.origin, "{originHost}", host, "{originPort}", port,
		"{clear}", fmt.Sprint(s.clear), "{tls}", fmt.Sprint(s.tls),
		"{cert}", s.certs.cert, "{key}", s.certs.key, "{both}", s.certs.both,
		"{memoryMiB}", fmt.Sprint(max(s.memory>>20, 1)), "{memory}", fmt.Sprint(s.memory),
		"{files}", fmt.Sprint(maxDescriptors()),
		// HAProxy counts two for each connection and some for itself.
		"{halfFiles}", fmt.Sprint(min(16384, maxDescriptors()/2-100)),
	).Replace(text)
}

const nginxConf = `daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
error_log {dir}/error.log crit;
pid {dir}/nginx.pid;
events { worker_connections 16384; }
http {
	access_log {dir}/access.log combined buffer=64k flush=1s;
	sendfile on;
	tcp_nopush on;
	default_type application/octet-stream;
	keepalive_requests 1000000000;
	open_file_cache max=20000 inactive=60s;
	client_body_temp_path {dir}/body;
	proxy_temp_path {dir}/temp;
	fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi;
	scgi_temp_path {dir}/scgi;
	proxy_cache_path {dir}/cache levels=1:2 keys_zone=cache:32m max_size={memoryMiB}m inactive=1h use_temp_path=off;
	ssl_certificate {cert};
	ssl_certificate_key {key};
	ssl_session_cache shared:ssl:10m;
	upstream origin {
		server {origin};
		keepalive 64;
		keepalive_requests 1000000000;
	}
	server {
		listen 127.0.0.1:{clear} backlog=4096;
		listen 127.0.0.1:{tls} ssl http2 backlog=4096;
		location / {
			proxy_pass http://origin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_cache cache;
			proxy_cache_key $request_uri;
			proxy_cache_lock on;
			proxy_cache_revalidate on;
			add_header X-Cache $upstream_cache_status;
		}
	}
}
`

func startNginx(_ context.Context, s *setting) (*server, error) {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its worker must reach the run's folder
	}
	conf := strings.ReplaceAll(s.fill(nginxConf), "{user}", user)
	if err := s.write(map[string]string{"nginx.conf": conf}); err != nil {
		return nil, err
	}
	p, err := s.launch("-c", filepath.Join(s.dir, "nginx.conf"), "-e", filepath.Join(s.dir, "error.log"))
	if err != nil {
		return nil, err
	}
	return &server{process: p, kept: keptInFiles(filepath.Join(s.dir, "cache"))}, nil
}

const varnishVCL = `vcl 4.1;
backend default { .host = "{originHost}"; .port = "{originPort}"; }
sub vcl_recv {
	if (req.method == "PURGE") { return (purge); }
}
sub vcl_backend_response {
	set beresp.grace = 0s;
	set beresp.keep = 1h;
}
`

func startVarnish(_ context.Context, s *setting) (*server, error) {
	if err := s.write(map[string]string{"default.vcl": s.fill(varnishVCL)}); err != nil {
		return nil, err
	}
	p, err := s.launch("-F", "-n", filepath.Join(s.dir, "work"), "-f", filepath.Join(s.dir, "default.vcl"),
		"-a", fmt.Sprintf("127.0.0.1:%d", s.clear), "-T", "none", "-j", "none",
		"-s", fmt.Sprintf("malloc,%dm", max(s.memory>>20, 1)),
		"-p", "thread_pools=1", "-p", "thread_pool_min=50", "-p", "thread_pool_max=1500")
	if err != nil {
		return nil, err
	}
	return &server{process: p, purge: purgeByMethod(s.clear), kept: keptByVarnish(filepath.Join(s.dir, "work"))}, nil
}

// purgeByMethod is a PURGE of the object itself.
func purgeByMethod(port int) func(path string) (method, url, contentType, body string) {
	return func(path string) (method, url, contentType, body string) {
		return "PURGE", fmt.Sprintf("http://127.0.0.1:%d%s", port, path), "", ""
	}
}

const haproxyConf = `global
	nbthread 1
	maxconn {halfFiles}
	log stdout format raw local0
	stats socket {dir}/runtime.sock level admin
cache objects
	total-max-size {memoryMiB}
	max-object-size 2097152
	max-age 3600
	process-vary on
defaults
	mode http
	log global
	option httplog
	timeout connect 5s
	timeout client 10m
	timeout server 60s
	timeout http-keep-alive 10m
	http-reuse always
frontend edge
	bind 127.0.0.1:{clear} backlog 4096
	bind 127.0.0.1:{tls} ssl crt {both} alpn h2,http/1.1 backlog 4096
	http-request cache-use objects
	http-response cache-store objects
	default_backend origin
backend origin
	server origin {origin}
`

func startHAProxy(_ context.Context, s *setting) (*server, error) {
	if err := s.write(map[string]string{"haproxy.cfg": s.fill(haproxyConf)}); err != nil {
		return nil, err
	}
	p, err := s.launch("-db", "-f", filepath.Join(s.dir, "haproxy.cfg"))
	if err != nil {
		return nil, err
	}
	return &server{process: p, kept: keptByHAProxy(filepath.Join(s.dir, "runtime.sock"))}, nil
}

const (
	trafficRoot = `prefix: {dir}
exec_prefix: {dir}
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: {dir}/etc
datadir: {dir}/cache
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {dir}
runtimedir: {dir}/run
logdir: {dir}/log
cachedir: {dir}/cache
`
	trafficRecords = `CONFIG proxy.config.http.server_ports STRING {clear}:ip-in=127.0.0.1 {tls}:ssl:ip-in=127.0.0.1
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.autoconfig.enabled INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.cache.threads_per_disk INT 2
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.cache.ram_cache.size INT {memory}
CONFIG proxy.config.cache.enable_read_while_writer INT 1
CONFIG proxy.config.http.cache.open_read_retry_time INT 10
CONFIG proxy.config.http.cache.max_open_read_retries INT 100
CONFIG proxy.config.http.background_fill_completed_threshold FLOAT 0.0
CONFIG proxy.config.net.connections_throttle INT 15000
CONFIG proxy.config.net.max_connections_in INT 15000
CONFIG proxy.config.http2.max_concurrent_streams_in INT 128
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.ssl.server.cert.path STRING {dir}/etc
CONFIG proxy.config.ssl.server.private_key.path STRING {dir}/etc
CONFIG proxy.config.log.logging_enabled INT 3
`
	trafficLogging = `logging:
  formats:
    - name: access
      format: '%<chi> %<cqtd> %<cqtt> "%<cqtx>" %<pssc> %<pscl> %<crc>'
  logs:
    - filename: access
      format: access
      mode: ascii
`
	trafficAllow = `ip_allow:
  - apply: in
    ip_addrs: 127.0.0.1
    action: allow
    methods: ALL
`
)

func startTrafficServer(_ context.Context, s *setting) (*server, error) {
	files := map[string]string{
		"runroot.yaml":             s.fill(trafficRoot),
		"etc/records.config":       s.fill(trafficRecords),
		"etc/logging.yaml":         trafficLogging,
		"etc/ip_allow.yaml":        trafficAllow,
		"etc/plugin.config":        "",
		"etc/remap.config":         s.fill("map / http://{origin}/\n"),
		"etc/storage.config":       fmt.Sprintf("%s %dM\n", filepath.Join(s.dir, "cache"), max(s.memory>>20, 128)),
		"etc/ssl_multicert.config": "dest_ip=* ssl_cert_name=cert.pem ssl_key_name=key.pem\n",
		"cache/.keep":              "",
		"run/.keep":                "",
		"log/.keep":                "",
	}
	for name, from := range map[string]string{"etc/cert.pem": s.certs.cert, "etc/key.pem": s.certs.key} {
		text, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		files[name] = string(text)
	}
	srv := &server{purge: purgeByMethod(s.clear)}
	if s.memory == smallMemory {
		// The plugin that tells what is kept looks at every request: only where
		// that is asked for.
		files["etc/plugin.config"] = "stats_over_http.so\n"
		files["etc/records.config"] += "CONFIG proxy.config.raw_stat_sync_interval_ms INT 50\n"
		srv.kept = keptByTrafficServer(s.clear)
	}
	if err := s.write(files); err != nil {
		return nil, err
	}
	p, err := s.launch("--run-root=" + filepath.Join(s.dir, "runroot.yaml"))
	if err != nil {
		return nil, err
	}
	srv.process = p
	return srv, nil
}
