// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

//go:embed demo.html
var demoHTML []byte

// page is a web server with one page, which follows what is published: /events has all of it as server-sent events.
type page struct {
	url    string
	server *http.Server
	end    context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	latest  []byte        // as JSON
	changed chan struct{} // closed when there is something later
}

// newPage listens at an address, which must be a loopback address. Port 0 is any free one.
func newPage(address string) (*page, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("-http: %w; write 127.0.0.1:8080", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("-http: %q: %w; write 127.0.0.1:8080", address, errNotLoopback)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("-http: %w; -http 127.0.0.1:0 takes any free port", err)
	}
	p := &page{url: "http://" + l.Addr().String() + "/", done: make(chan struct{}), changed: make(chan struct{}), latest: []byte("{}")}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.document)
	mux.HandleFunc("GET /events", p.events)
	ctx, end := context.WithCancel(context.Background())
	p.end = end
	p.server = &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(p.done)
		_ = p.server.Serve(l) // returns on Shutdown
	}()
	return p, nil
}

// stop ends the server when all have been sent what was published last, or after a second.
func (p *page) stop() {
	p.end()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := p.server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = p.server.Close()
	}
	<-p.done
}

// publish replaces what the page shows.
func (p *page) publish(s any) {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a type that cannot be encoded, in this program
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Equal(text, p.latest) {
		return
	}
	p.latest = text
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *page) now() ([]byte, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest, p.changed
}

func (p *page) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(demoHTML) // the browser is gone
}

func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	c := http.NewResponseController(w)
	var sent []byte
	for {
		text, changed := p.now()
		if !bytes.Equal(text, sent) {
			_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if _, err := fmt.Fprintf(w, "retry: 1000\ndata: %s\n\n", text); err != nil {
				return
			}
			if err := c.Flush(); err != nil {
				return
			}
			sent = text
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			if text, _ := p.now(); bytes.Equal(text, sent) {
				return
			}
		}
	}
}
