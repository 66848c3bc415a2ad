// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// httpServer is a server on a loopback address.
type httpServer struct {
	address, url string
	server       *http.Server
	done         chan struct{}
}

func newHTTPServer(h http.Handler) (*httpServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &httpServer{address: l.Addr().String(), url: "http://" + l.Addr().String(), server: &http.Server{Handler: h}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(l) // returns on Close
	}()
	return s, nil
}

func (s *httpServer) close() {
	if s == nil {
		return
	}
	_ = s.server.Close()
	<-s.done
}

// handOn sends a request to another server, whatever becomes of the one who asked: the other server has it even if
// nobody waits any more.
func handOn(r *http.Request, body []byte, url string) (status int, header http.Header, answer []byte, err error) {
	onward, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, url+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	onward.Header = r.Header.Clone()
	resp, err := httpClient.Do(onward)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}

func reply(w http.ResponseWriter, status int, header http.Header, answer []byte) {
	for key, values := range header {
		if key != "Content-Length" {
			w.Header()[key] = values
		}
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

// slowBackend stands in front of the backend, far away: each request takes another time on its way there, so that one
// can overtake another.
type slowBackend struct {
	*httpServer
	to      string
	latency latency

	mu       sync.Mutex
	underWay int
	last     time.Time // when a request came or was answered
	requests int
	excuse   string // what the backend said of the first request that it refused
}

func newSlowBackend(to string, l latency) (s *slowBackend, err error) {
	s = &slowBackend{to: to, latency: l, last: time.Now()}
	s.httpServer, err = newHTTPServer(s)
	return s, err
}

func (s *slowBackend) http() *httpServer {
	if s == nil {
		return nil
	}
	return s.httpServer
}

// ServeHTTP implements http.Handler.
func (s *slowBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.count(1, "")
	excuse := ""
	defer func() { s.count(-1, excuse) }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the Collector is gone
	}
	time.Sleep(s.latency.from + rand.N(s.latency.to-s.latency.from))
	status, header, answer, err := handOn(r, body, s.to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if status/100 != 2 {
		excuse = fmt.Sprintf("%d: %s", status, answer)
	}
	reply(w, status, header, answer)
}

func (s *slowBackend) count(n int, excuse string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay += n
	s.requests += max(0, n)
	s.last = time.Now()
	if s.excuse == "" {
		s.excuse = excuse
	}
}

// settled is nil if nothing is under way and nothing has come for as long as a Collector may collect a batch.
func (s *slowBackend) settled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.underWay > 0 || time.Since(s.last) < 1500*time.Millisecond {
		return fmt.Errorf("%d requests are under way to the backend, the last %v ago", s.underWay, time.Since(s.last))
	}
	return nil
}

// balancer hands each request to any of some servers.
type balancer struct {
	*httpServer
	to []string
}

func newBalancer(to []string) (b *balancer, err error) {
	b = &balancer{to: to}
	b.httpServer, err = newHTTPServer(b)
	return b, err
}

func (b *balancer) http() *httpServer {
	if b == nil {
		return nil
	}
	return b.httpServer
}

// ServeHTTP implements http.Handler.
func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	status, header, answer, err := handOn(r, body, b.to[rand.IntN(len(b.to))])
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	reply(w, status, header, answer)
}

// telemetry takes the metrics of Collectors, and keeps what lanes say of their items.
type telemetry struct {
	*httpServer

	mu    sync.Mutex
	items map[string]map[string]int64 // by instance and outcome; they only rise
	err   error
}

func newTelemetry() (t *telemetry, err error) {
	t = &telemetry{items: map[string]map[string]int64{}}
	t.httpServer, err = newHTTPServer(t)
	return t, err
}

func (t *telemetry) http() *httpServer {
	if t == nil {
		return nil
	}
	return t.httpServer
}

// ServeHTTP implements http.Handler.
func (t *telemetry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	request := pmetricotlp.NewExportRequest()
	if err := request.UnmarshalProto(body); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.err = errors.Join(t.err, err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.take(request.Metrics())
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (t *telemetry) take(md pmetric.Metrics) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, rm := range md.ResourceMetrics().All() {
		instance, _ := rm.Resource().Attributes().Get("service.instance.id")
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if m.Name() != "otelcol_lanes_items" || m.Type() != pmetric.MetricTypeSum {
					continue
				}
				outcomes := map[string]int64{}
				for _, dp := range m.Sum().DataPoints().All() {
					outcome, _ := dp.Attributes().Get("outcome")
					outcomes[outcome.AsString()] += dp.IntValue()
				}
				t.items[instance.AsString()] = outcomes
			}
		}
	}
}

// outcomes are what became of all items of all lanes.
func (t *telemetry) outcomes() (map[string]int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := map[string]int64{}
	for _, outcomes := range t.items {
		for outcome, n := range outcomes {
			sum[outcome] += n
		}
	}
	return sum, t.err
}
