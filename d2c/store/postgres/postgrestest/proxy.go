// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgrestest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy is in front of a server.
type Proxy struct {
	// Addr is where it listens.
	Addr string

	target string
	lose   atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// StartProxy starts a Proxy in front of an address.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, conns: map[net.Conn]struct{}{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		serving.Wait()
	})
	return p
}

func (p *Proxy) serve(client net.Conn) {
	defer p.forget(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	defer p.forget(server)
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var asking sync.WaitGroup
	asking.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_, _ = io.Copy(answers{p, client}, server)
	_ = client.Close()
	_ = server.Close()
	asking.Wait()
}

func (p *Proxy) forget(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// answers is the way back.
type answers struct {
	p      *Proxy
	client net.Conn
}

func (a answers) Write(b []byte) (int, error) {
	if a.p.lose.CompareAndSwap(true, false) {
		return 0, io.ErrClosedPipe
	}
	return a.client.Write(b)
}

// LoseAnswer has the next answer lost, and its connection with it.
func (p *Proxy) LoseAnswer() { p.lose.Store(true) }

// Cut cuts all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}
