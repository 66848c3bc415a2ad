// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/deltaring/deltaring/ring"
)

const (
	defaultPort = "4317"
	ringLimit   = 65536 // members, see ring.New
)

// endpoint is a member and where it is.
type endpoint struct {
	ring.Member
	address string // as the OTLP exporter wants it
}

// withPort adds the default port to an address without one, as load_balancing does. Addresses with a scheme are left as
// they are.
func withPort(address string) (string, error) {
	if address == "" {
		return "", errors.New("must be set")
	}
	if strings.Contains(address, "://") || strings.HasPrefix(address, "unix:") {
		return address, nil
	}
	if ip, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		return net.JoinHostPort(ip.String(), defaultPort), nil
	}
	if !strings.Contains(address, ":") {
		return net.JoinHostPort(address, defaultPort), nil
	}
	return address, checkAddress(address)
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err // names the address
	}
	if host == "" {
		return fmt.Errorf("%q has no host", address)
	}
	if err := checkPort(port); err != nil {
		return fmt.Errorf("%q: %w", address, err)
	}
	return nil
}

func checkPort(port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return nil
}

// serverAddress adds the port of DNS to an address without one.
func serverAddress(address string) (string, error) {
	if ip, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		return net.JoinHostPort(ip.String(), "53"), nil
	}
	if !strings.Contains(address, ":") {
		address = net.JoinHostPort(address, "53")
	}
	return address, checkAddress(address)
}
