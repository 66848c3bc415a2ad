// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// recorder stands between the workers and Prometheus, hands every remote write on unchanged, and takes note of what
// Prometheus takes, when, and what it does not take. Prometheus' own metrics do not tell that: it rejects a whole request
// for one sample and counts one.
type recorder struct {
	url    string
	server *http.Server
	done   chan struct{}

	mu       sync.Mutex
	to       string // where Prometheus takes remote writes
	latest   map[string]arrival
	watching bool
	stalest  time.Duration
	rejected int    // samples
	excuse   string // what Prometheus said of the first ones
}

// arrival is the last time at which a series got a sample newer than all before.
type arrival struct {
	ms int64 // of the sample
	at time.Time
}

func newRecorder(to string) (*recorder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &recorder{url: "http://" + l.Addr().String(), done: make(chan struct{}), to: to, latest: map[string]arrival{}}
	r.server = &http.Server{Handler: r}
	go func() {
		defer close(r.done)
		_ = r.server.Serve(l) // returns on Close
	}()
	return r, nil
}

func (r *recorder) stop() {
	_ = r.server.Close()
	<-r.done
}

// ServeHTTP implements http.Handler.
func (r *recorder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the worker is gone
	}
	// Prometheus takes what it has read, whether or not somebody still waits for the answer.
	onward, err := http.NewRequestWithContext(context.WithoutCancel(request.Context()), http.MethodPost, r.to, bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	onward.Header = request.Header.Clone()
	resp, err := httpClient.Do(onward)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	samples, err := readWrite(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	r.record(samples, resp.StatusCode, string(answer), time.Now())
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer)
}

func (r *recorder) record(samples []written, status int, answer string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if status/100 != 2 {
		r.rejected += len(samples)
		if r.excuse == "" {
			r.excuse = fmt.Sprintf("%d: %s", status, answer)
		}
		return
	}
	for _, s := range samples {
		before, known := r.latest[s.series]
		if known && s.ms <= before.ms {
			continue
		}
		if known && r.watching {
			r.stalest = max(r.stalest, now.Sub(before.at))
		}
		r.latest[s.series] = arrival{s.ms, now}
	}
}

// watch begins to look for series that get no fresh samples.
func (r *recorder) watch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watching = true
}

// unwatch ends that and returns the longest time that any series went without.
func (r *recorder) unwatch() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watching = false
	for _, a := range r.latest {
		r.stalest = max(r.stalest, time.Since(a.at))
	}
	return r.stalest
}

// refused returns how many samples were in requests that Prometheus rejected, and what it said of the first one.
func (r *recorder) refused() (samples int, excuse string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rejected, r.excuse
}

// written is a sample on its way to Prometheus.
type written struct {
	series string // its labels as they were sent, which the exporter sorts
	ms     int64
}

// readWrite reads a prometheus.WriteRequest, of which it needs: repeated TimeSeries timeseries = 1; with repeated Label
// labels = 1 and repeated Sample samples = 2; with int64 timestamp = 2.
func readWrite(body []byte) ([]written, error) {
	data, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, fmt.Errorf("remote write: %w", err)
	}
	var all []written
	err = fields(data, func(number protowire.Number, series []byte, _ uint64) error {
		if number != 1 {
			return nil
		}
		var labels []byte
		var times []int64
		err := fields(series, func(number protowire.Number, value []byte, _ uint64) error {
			switch number {
			case 1:
				labels = append(labels, value...)
			case 2:
				return fields(value, func(number protowire.Number, _ []byte, v uint64) error {
					if number == 2 {
						times = append(times, int64(v))
					}
					return nil
				})
			}
			return nil
		})
		for _, ms := range times {
			all = append(all, written{string(labels), ms})
		}
		return err
	})
	return all, err
}

// fields calls f for each field of a message, with its bytes or its number.
func fields(message []byte, f func(number protowire.Number, value []byte, v uint64) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("remote write: %w", protowire.ParseError(n))
		}
		message = message[n:]
		var value []byte
		var v uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return fmt.Errorf("remote write: %w", protowire.ParseError(n))
		}
		message = message[n:]
		if err := f(number, value, v); err != nil {
			return err
		}
	}
	return nil
}
