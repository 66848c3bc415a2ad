// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Fault is what becomes of a request at the Proxy. The zero value has it go through.
type Fault struct {
	// Delay is waited before anything else is done.
	Delay time.Duration
	// Status and Code are answered, and Header with them, in the place of what the server would.
	Status int
	Code   string
	Header http.Header
	// Lose is what does not arrive.
	Lose Lose
	// Change changes the request before the server gets it.
	Change func(*http.Request)
	// Answer changes the answer before the client gets it.
	Answer func(header http.Header, body []byte) []byte
}

// Lose says what does not arrive of a request.
type Lose int

// What does not arrive.
const (
	Nothing Lose = iota
	Request      // the server does not get it
	Answer       // the server has done it, the client gets no answer
	Late         // the client gets no answer, and the server gets the request some time after
	Half         // the client gets half of the answer's body
	Silence      // the server has done it, and the client waits for an answer
)

// Proxy stands between a client and a server.
type Proxy struct {
	// URL is its endpoint.
	URL string

	t      testing.TB
	target string
	client *http.Client
	over   context.Context
	late   sync.WaitGroup

	mu     sync.Mutex
	fault  func(*http.Request) Fault
	counts map[string]int
}

// LateBy is how much later a request arrives that is Late.
const LateBy = 20 * time.Millisecond

// NewProxy returns one before the server at an endpoint.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, counts: map[string]int{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	p.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	over, cancel := context.WithCancel(context.Background())
	p.over = over
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	p.URL = server.URL
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		p.late.Wait()
		transport.CloseIdleConnections()
	})
	return p
}

// Fail has each request meet the fault that f returns for it; nil ends that. f is called by several goroutines at a time.
func (p *Proxy) Fail(f func(*http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Take returns how many requests came since it was called last, by method.
func (p *Proxy) Take() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := p.counts
	p.counts = map[string]int{}
	return counts
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	p.mu.Lock()
	p.counts[r.Method]++
	fault := p.fault
	p.mu.Unlock()
	var f Fault
	if fault != nil {
		f = fault(r)
	}
	if f.Delay > 0 && !p.sleep(r.Context(), f.Delay) {
		panic(http.ErrAbortHandler)
	}
	if f.Status != 0 {
		for key, values := range f.Header {
			w.Header()[key] = values
		}
		w.WriteHeader(f.Status)
		fmt.Fprintf(w, "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>injected</Message></Error>", f.Code)
		return
	}
	switch f.Lose {
	case Request:
		panic(http.ErrAbortHandler)
	case Late:
		p.late.Go(func() {
			if p.sleep(context.Background(), LateBy) {
				_, _, _ = p.forward(r, f, body)
			}
		})
		panic(http.ErrAbortHandler)
	}
	response, answer, err := p.forward(r, f, body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if f.Answer != nil {
		answer = f.Answer(response.Header, answer)
	}
	switch f.Lose {
	case Answer:
		panic(http.ErrAbortHandler)
	case Silence:
		select {
		case <-r.Context().Done():
		case <-p.over.Done():
		}
		panic(http.ErrAbortHandler)
	}
	for key, values := range response.Header {
		w.Header()[key] = values
	}
	if r.Method != http.MethodHead && response.StatusCode != http.StatusNoContent && response.StatusCode != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	}
	w.WriteHeader(response.StatusCode)
	if f.Lose == Half {
		_, _ = w.Write(answer[:len(answer)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(answer)
}

// Without returns a Change that takes headers away, as a store does that does not know them, and signs the rest anew.
func Without(names ...string) func(*http.Request) {
	return func(r *http.Request) {
		for _, name := range append(names, "Authorization") {
			r.Header.Del(name)
		}
		who := aws.Credentials{AccessKeyID: AccessKey, SecretAccessKey: SecretKey}
		sum := r.Header.Get("X-Amz-Content-Sha256")
		if err := v4.NewSigner().SignHTTP(r.Context(), who, r, sum, "s3", Region, time.Now()); err != nil {
			panic(err)
		}
	}
}

// sleep reports whether it was long enough.
func (p *Proxy) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-p.over.Done():
	}
	return false
}

// forward sends the request as it came, Host and all: its signature is of that.
func (p *Proxy) forward(r *http.Request, f Fault, body []byte) (*http.Response, []byte, error) {
	out, err := http.NewRequestWithContext(p.over, r.Method, p.target+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	out.Header, out.Host = r.Header.Clone(), r.Host
	if f.Change != nil {
		f.Change(out)
	}
	response, err := p.client.Do(out)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response, answer, err
}
