package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// sampleOrigin answers what the demo's tour asks for. Each page says how often
// it was made, so that one can see when the origin was asked.
func sampleOrigin() http.Handler {
	began := time.Now()
	var made atomic.Int64
	count := func(w http.ResponseWriter, what string) {
		fmt.Fprintf(w, "%s, made for the %d. time at %s\n", what, made.Add(1), time.Now().Format(time.TimeOnly))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "<!doctype html><title>A sample origin</title><h1>A sample origin</h1><ul>"+
			"<li><a href=/page>page</a><li><a href=/checked>checked</a><li><a href=/file>file</a>"+
			"<li><a href=/slow>slow</a><li><a href=/stream>stream</a><li><a href=/greeting>greeting</a></ul>\n")
	})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=10, stale-while-revalidate=60")
		count(w, "a page that may be served stale")
	})
	mux.HandleFunc("GET /checked", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1")
		w.Header().Set("ETag", `"the-same-since-`+fmt.Sprint(began.Unix())+`"`)
		http.ServeContent(w, r, "checked.txt", began, strings.NewReader("a page that the node asks about, and that stays the same\n"))
	})
	file := bytes.Repeat([]byte("0123456789abcdef----------------0123456789ABCDEF===============\n"), 16<<10) // 1 MiB
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("ETag", `"file"`)
		http.ServeContent(w, r, "file.txt", began, bytes.NewReader(file))
	})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		if !pause(r, 2*time.Second) {
			return
		}
		w.Header().Set("Cache-Control", "max-age=30")
		count(w, "a page that takes two seconds to make")
	})
	mux.HandleFunc("GET /stream", stream)
	mux.HandleFunc("GET /greeting", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "Accept-Language")
		greeting := "hello"
		for language, words := range map[string]string{"fr": "bonjour", "de": "guten Tag", "es": "hola"} {
			if strings.HasPrefix(strings.ToLower(r.Header.Get("Accept-Language")), language) {
				greeting = words
				w.Header().Set("Content-Language", language)
			}
		}
		count(w, greeting)
	})
	shared := func(what string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
			count(w, what)
		}
	}
	mux.HandleFunc("GET /members", shared("a page for members"))
	mux.HandleFunc("GET /offer", shared("offer A"))
	mux.HandleFunc("GET /beta/offer", shared("offer B"))
	mux.HandleFunc("POST /form", func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err != nil {
			http.Error(w, "more than 64 KiB", http.StatusRequestEntityTooLarge)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintf(w, "the origin was sent %d bytes: %q\n", len(sent), sent)
	})
	return mux
}

// stream sends an event every half second, ten in all.
func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	for i := range 10 {
		fmt.Fprintf(w, "data: event %d of 10 at %s\n\n", i+1, time.Now().Format("15:04:05.000"))
		if out.Flush() != nil || !pause(r, 500*time.Millisecond) {
			return
		}
	}
}

// pause waits, and reports whether the client still does.
func pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
