// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

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

// DNS finds members by DNS records.
type DNS struct {
	// Hostname is the name to look up.
	Hostname string
	// SRV looks up SRV records of Hostname and names members by the targets of their records; weights and priorities are
	// ignored. Otherwise A and AAAA records are looked up, and members are named by their addresses.
	SRV bool
	// Port is the port of members found by A and AAAA records. Default DefaultPort.
	Port string
	// Timeout bounds a lookup.
	Timeout time.Duration
	// Server is the address of a DNS server to ask instead of the system's. See Check.
	Server string
}

// Check returns an error if Server is not the address of a server.
func (d *DNS) Check() error {
	if d.Server == "" {
		return nil
	}
	_, err := withPort(d.Server, "53")
	return err
}

// Find looks the members up once.
func (d *DNS) Find(ctx context.Context) (List, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	resolver, server := &net.Resolver{}, ""
	if d.Server != "" {
		var err error
		if server, err = withPort(d.Server, "53"); err != nil {
			return List{}, err
		}
		resolver.PreferGo = true
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
	}
	var found []Member
	var err error
	if d.SRV {
		found, err = d.findServices(ctx, resolver, server)
	} else {
		found, err = d.findAddresses(ctx, resolver)
	}
	if dnsError := (*net.DNSError)(nil); errors.As(err, &dnsError) && dnsError.IsNotFound {
		err = fmt.Errorf("%w: %w", ErrNone, err)
	}
	return List{Members: found}, err
}

func (d *DNS) findAddresses(ctx context.Context, resolver *net.Resolver) ([]Member, error) {
	addresses, err := resolver.LookupNetIP(ctx, "ip", d.Hostname)
	if err != nil {
		return nil, err
	}
	found := make([]Member, len(addresses))
	for i, ip := range addresses {
		name := ip.Unmap().String()
		found[i] = Member{
			Member:  ring.Member{Name: name, Weight: 1},
			Address: net.JoinHostPort(name, cmp.Or(d.Port, DefaultPort)),
		}
	}
	return found, nil
}

func (d *DNS) findServices(ctx context.Context, resolver *net.Resolver, server string) ([]Member, error) {
	_, records, err := resolver.LookupSRV(ctx, "", "", d.Hostname)
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
	found := make([]Member, len(records))
	for i, r := range records {
		name := strings.TrimSuffix(r.Target, ".")
		address := net.JoinHostPort(name, strconv.Itoa(int(r.Port)))
		if ports[r.Target] > 1 {
			name = address
		}
		if server != "" {
			address = "dns://" + server + "/" + address // have gRPC ask the same server
		}
		found[i] = Member{Member: ring.Member{Name: name, Weight: 1}, Address: address}
	}
	return found, nil
}
