// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
)

// find looks up once.
func find(t *testing.T, s *nameServer, settings string) ([]resolve.Member, error) {
	t.Helper()
	cfg, err := load(t, fmt.Sprintf("resolver: {dns: {server: %q, timeout: 10s, %s}}", s.address, settings))
	require.NoError(t, err)
	r, err := cfg.Resolver.resolver(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var report resolve.Report
	var found []resolve.Member
	r.Follow(ctx, func(list []resolve.Member) error {
		found = list
		return nil
	}, func(r resolve.Report) {
		report = r
		cancel()
	})
	return found, report.Err
}

func TestLookupOfAddresses(t *testing.T) {
	s := startNameServer(t)
	s.set(func(q dns.Question) (int, []dns.RR) {
		switch q.Qtype {
		case dns.TypeA:
			return 0, []dns.RR{
				&dns.A{Hdr: header(q), A: net.IPv4(10, 0, 0, 2)},
				&dns.A{Hdr: header(q), A: net.IPv4(10, 0, 0, 1)},
				&dns.A{Hdr: header(q), A: net.IPv4(10, 0, 0, 2)}, // twice
			}
		case dns.TypeAAAA:
			return 0, []dns.RR{&dns.AAAA{Hdr: header(q), AAAA: net.ParseIP("fd00::1")}}
		}
		return dns.RcodeNameError, nil
	})
	for port, settings := range map[string]string{"4317": "hostname: workers.test", "4318": "hostname: workers.test, port: '4318'"} {
		got, err := find(t, s, settings)
		require.NoError(t, err)
		assert.Equal(t, []resolve.Member{
			{Member: ring.Member{Name: "10.0.0.1", Weight: 1}, Address: "10.0.0.1:" + port},
			{Member: ring.Member{Name: "10.0.0.2", Weight: 1}, Address: "10.0.0.2:" + port},
			{Member: ring.Member{Name: "fd00::1", Weight: 1}, Address: "[fd00::1]:" + port},
		}, got)
	}
}

func TestLookupOfServices(t *testing.T) {
	s := startNameServer(t)
	srv := func(q dns.Question, target string, port, weight uint16) dns.RR {
		return &dns.SRV{Hdr: header(q), Target: target, Port: port, Weight: weight}
	}
	s.set(func(q dns.Question) (int, []dns.RR) {
		return 0, []dns.RR{
			srv(q, "w-1.test.", 4317, 50), srv(q, "w-0.test.", 4317, 0),
			srv(q, "w-1.test.", 4317, 50), // twice
			srv(q, "two.test.", 1, 7), srv(q, "two.test.", 2, 7),
		}
	})
	got, err := find(t, s, "hostname: _otlp._tcp.workers.test, srv: true")
	require.NoError(t, err)
	at := "dns://" + s.address + "/"
	assert.Equal(t, []resolve.Member{
		{Member: ring.Member{Name: "two.test:1", Weight: 1}, Address: at + "two.test:1"},
		{Member: ring.Member{Name: "two.test:2", Weight: 1}, Address: at + "two.test:2"},
		{Member: ring.Member{Name: "w-0.test", Weight: 1}, Address: at + "w-0.test:4317"},
		{Member: ring.Member{Name: "w-1.test", Weight: 1}, Address: at + "w-1.test:4317"},
	}, got)
}

// TestLookupOfThousands has 5000 members: as many as A and AAAA records together can be, as a DNS message ends at 64 KiB.
func TestLookupOfThousands(t *testing.T) {
	s := startNameServer(t)
	s.set(func(q dns.Question) (int, []dns.RR) {
		var all []dns.RR
		for i := range map[uint16]int{dns.TypeA: 2800, dns.TypeAAAA: 2200}[q.Qtype] {
			switch q.Qtype {
			case dns.TypeA:
				all = append(all, &dns.A{Hdr: header(q), A: net.IPv4(10, 1, byte(i>>8), byte(i))})
			case dns.TypeAAAA:
				ip := net.ParseIP("fd00::")
				ip[14], ip[15] = byte(i>>8), byte(i)
				all = append(all, &dns.AAAA{Hdr: header(q), AAAA: ip})
			}
		}
		return dns.RcodeSuccess, all
	})
	_, err := find(t, s, "hostname: workers.test")
	assert.ErrorContains(t, err, "5000 members, more than max_members, 1000")
	got, err := find(t, s, "hostname: workers.test, max_members: 5000")
	require.NoError(t, err)
	assert.Len(t, got, 5000)
}

// TestTooManyMembersKeepTheLastList lets the number of members grow beyond what is accepted.
func TestTooManyMembersKeepTheLastList(t *testing.T) {
	workers := startWorkers(t, "a", "b", "c")
	s := startNameServer(t)
	s.serve(only(workers, "a", "b"))
	cfg := dnsConfig(t, s)
	cfg.Resolver.DNS.Get().MaxMembers = 2
	g := startGateway(t, cfg)
	g.awaitMembers("a.workers.test", "b.workers.test")
	s.serve(workers)
	s.awaitQueries(t, 10)
	assert.Equal(t, []string{"a.workers.test", "b.workers.test"}, g.members())
	assert.NotZero(t, sum(t, g, "otelcol_ring_lookups", "outcome", "failed"))
}
