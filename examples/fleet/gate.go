// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// jitter is what a slow backend takes for a request: at times longer than an interval, or nothing could be overtaken that comes once
// in each.
var jitter = latency{5 * time.Millisecond, 2 * interval}

// gate stands before a backend and hands every request on, at once or after a while, and takes note of what the backend refuses for
// good: a backend counts one sample for a request that it refuses whole.
type gate struct {
	*httpServer
	to   string
	slow atomic.Bool // each request waits a time of its own, so that those on their way at once overtake each other

	mu      sync.Mutex
	refused int
	excuse  string // what the backend said of the first one
}

func newGate(to string) (g *gate, err error) {
	g = &gate{to: to}
	g.httpServer, err = newHTTPServer(g)
	return g, err
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the Collector is gone
	}
	if g.slow.Load() {
		time.Sleep(jitter.from + rand.N(jitter.to-jitter.from))
	}
	status, header, answer, err := handOn(r, body, g.to)
	if err != nil {
		panic(http.ErrAbortHandler) // a backend that is away answers nothing, and no proxy does for it
	}
	if status/100 == 4 {
		g.note(fmt.Sprintf("%s %d: %q", r.URL.Path, status, answer))
	}
	reply(w, status, header, answer)
}

func (g *gate) note(excuse string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused++
	if g.excuse == "" {
		g.excuse = excuse
	}
}

// refusals returns how many requests the backend has refused for good, and what it said of the first one.
func (g *gate) refusals() (int, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused, g.excuse
}
