// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltaring/deltaring/ring"
)

// lookup finds members by DNS.
type lookup struct {
	cfg      *DNSConfig
	server   string // address, or empty for those of the system
	resolver *net.Resolver
}

var errNoMembersFound = errors.New("the answer has no members")

func newLookup(cfg *DNSConfig) (*lookup, error) {
	l := &lookup{cfg: cfg, resolver: &net.Resolver{}}
	if cfg.Server != "" {
		var err error
		if l.server, err = serverAddress(cfg.Server); err != nil {
			return nil, err
		}
		l.resolver.PreferGo = true
		l.resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.server)
		}
	}
	return l, nil
}

// find asks once and returns members in the order of their names, at least one. The error is errNoMembersFound if the
// answer has none.
func (l *lookup) find(ctx context.Context) ([]endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	ask := l.findAddresses
	if l.cfg.SRV {
		ask = l.findServices
	}
	found, err := ask(ctx)
	var dnsError *net.DNSError
	switch {
	case errors.As(err, &dnsError) && dnsError.IsNotFound:
		return nil, fmt.Errorf("%w: %w", errNoMembersFound, err)
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, errNoMembersFound
	}
	slices.SortFunc(found, func(a, b endpoint) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.address, b.address))
	})
	found = slices.CompactFunc(found, func(a, b endpoint) bool { return a.Name == b.Name })
	if len(found) > l.cfg.MaxMembers {
		return nil, fmt.Errorf("the answer has %d members, more than max_members, %d", len(found), l.cfg.MaxMembers)
	}
	return found, nil
}

func (l *lookup) findAddresses(ctx context.Context) ([]endpoint, error) {
	addresses, err := l.resolver.LookupNetIP(ctx, "ip", l.cfg.Hostname)
	if err != nil {
		return nil, err
	}
	found := make([]endpoint, len(addresses))
	for i, ip := range addresses {
		name := ip.Unmap().String()
		found[i] = endpoint{
			Member:  ring.Member{Name: name, Weight: 1},
			address: net.JoinHostPort(name, cmp.Or(l.cfg.Port, defaultPort)),
		}
	}
	return found, nil
}

func (l *lookup) findServices(ctx context.Context) ([]endpoint, error) {
	_, records, err := l.resolver.LookupSRV(ctx, "", "", l.cfg.Hostname)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(records, func(a, b *net.SRV) int {
		return cmp.Or(strings.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port))
	})
	records = slices.CompactFunc(records, func(a, b *net.SRV) bool { return a.Target == b.Target && a.Port == b.Port })
	// A target with several ports is as many members.
	ports := map[string]int{}
	for _, r := range records {
		ports[r.Target]++
	}
	found := make([]endpoint, len(records))
	for i, r := range records {
		name := strings.TrimSuffix(r.Target, ".")
		address := net.JoinHostPort(name, strconv.Itoa(int(r.Port)))
		if ports[r.Target] > 1 {
			name = address
		}
		if l.server != "" {
			address = "dns://" + l.server + "/" + address // have gRPC ask the same server
		}
		found[i] = endpoint{Member: ring.Member{Name: name, Weight: 1}, address: address}
	}
	return found, nil
}

// follow looks members up until ctx is done, and calls apply with every list that lasts. What apply refuses counts as
// not seen, and is offered again.
func (l *lookup) follow(ctx context.Context, apply func([]endpoint) error, report func(error)) {
	d := debouncer{wait: l.cfg.Debounce}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := l.cfg.Interval
		found, err := l.find(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			act, again := d.offer(time.Now(), found)
			if act {
				if err = apply(found); err == nil {
					d.acted(found)
				}
			} else if again > 0 {
				next = min(next, again)
			}
			if err != nil {
				err = refusedError{err}
			}
		}
		report(err)
		timer.Reset(next)
	}
}

// refusedError is of members that were found and cannot be.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }
