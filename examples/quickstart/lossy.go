// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// lossyProxy stands between a producer and the Collector, as a load balancer does. It delivers every request, but the
// answer to one of them gets lost on the way back: the producer hears "504 Gateway Timeout", which OTLP counts among the
// errors after which a client sends the same request again.
type lossyProxy struct {
	addr string // where it listens, as host:port

	target string
	onLoss func(points, bytes int)

	server *http.Server
	client *http.Client
	done   chan struct{} // closed when server has ended

	mu       sync.Mutex
	requests int
	loss     loss
}

// loss describes the request whose answer was lost.
type loss struct {
	points, deltas int               // its data points, and those of them that are deltas
	body           [sha256.Size]byte // hash of it
	resent         bool              // the same body came once more
}

// startLossyProxy loses the answer to the first request but one that has deltas in it, and tells onLoss.
func startLossyProxy(target string, onLoss func(points, bytes int)) (*lossyProxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("lossy proxy: %w", err)
	}
	p := &lossyProxy{
		addr: l.Addr().String(), target: "http://" + target, onLoss: onLoss,
		client: &http.Client{Transport: &http.Transport{}},
		done:   make(chan struct{}),
	}
	p.server = &http.Server{Handler: p}
	go func() {
		defer close(p.done)
		_ = p.server.Serve(l) // always http.ErrServerClosed, after stop
	}()
	return p, nil
}

// stop ends the proxy; requests in flight are finished first.
func (p *lossyProxy) stop(ctx context.Context) error {
	err := p.server.Shutdown(ctx)
	p.client.CloseIdleConnections()
	<-p.done
	return err
}

// lost returns what reached the Collector twice, or an error if nothing did.
func (p *lossyProxy) lost() (loss, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.loss.points == 0:
		return loss{}, errors.New("no answer was lost")
	case !p.loss.resent:
		return loss{}, errors.New("an answer was lost but the request was not sent again")
	}
	return p.loss, nil
}

func (p *lossyProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	forward, err := http.NewRequestWithContext(r.Context(), r.Method, p.target+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	forward.Header = r.Header.Clone()
	answer, err := p.client.Do(forward)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = answer.Body.Close() }()
	answerBody, err := io.ReadAll(answer.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}

	if answer.StatusCode == http.StatusOK && p.losesThis(body) {
		http.Error(w, "the Collector's answer was lost", http.StatusGatewayTimeout)
		return
	}
	w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(answerBody) // a producer that has gone away learns nothing more
}

// losesThis takes note of a delivered request and reports whether its answer is the one to lose.
func (p *lossyProxy) losesThis(body []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	hash := sha256.Sum256(body)
	p.requests++
	if p.loss.points > 0 {
		p.loss.resent = p.loss.resent || hash == p.loss.body
		return false
	}
	request := pmetricotlp.NewExportRequest()
	if err := request.UnmarshalProto(body); err != nil {
		return false // cannot be: the Collector has just accepted it
	}
	l := loss{body: hash}
	eachSample(request.Metrics(), func(_ string, _ label, s sample) {
		l.points++
		if s.delta {
			l.deltas++
		}
	})
	if p.requests == 1 || l.deltas == 0 {
		return false
	}
	p.loss = l
	p.onLoss(l.points, len(body))
	return true
}
