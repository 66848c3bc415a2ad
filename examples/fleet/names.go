// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

const (
	workersDomain = "workers.test"
	workersSRV    = "_otlp._tcp." + workersDomain
)

// nameServer is a DNS server that knows the workers, as that of Kubernetes knows the pods behind a headless service.
type nameServer struct {
	address string
	server  *dns.Server
	done    chan struct{}

	mu      sync.Mutex
	workers map[string]string // addresses by name
}

func newNameServer() (*nameServer, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &nameServer{address: conn.LocalAddr().String(), done: make(chan struct{})}
	started := make(chan struct{})
	s.server = &dns.Server{PacketConn: conn, Handler: s, NotifyStartedFunc: func() { close(started) }}
	go func() {
		defer close(s.done)
		_ = s.server.ActivateAndServe() // returns on Shutdown
	}()
	select {
	case <-started:
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("DNS server at %s does not start", s.address)
	}
}

func (s *nameServer) stop() {
	_ = s.server.Shutdown()
	<-s.done
}

func (s *nameServer) set(workers map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = maps.Clone(workers)
}

// ServeDNS implements dns.Handler.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply, q := new(dns.Msg), query.Question[0]
	reply.SetReply(query)
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
	for _, name := range slices.Sorted(maps.Keys(s.workers)) {
		target := name + "." + workersDomain + "."
		address := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.workers[name]))
		switch {
		case q.Qtype == dns.TypeSRV && q.Name == workersSRV+".":
			reply.Answer = append(reply.Answer, &dns.SRV{Hdr: header, Target: target, Port: uint16(address.Port)})
		case q.Qtype == dns.TypeA && q.Name == target:
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: address.IP})
		}
	}
	_ = w.WriteMsg(reply)
}
