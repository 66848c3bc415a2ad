// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is the port of OTLP over gRPC.
const DefaultPort = "4317"

// WithPort adds the default port to an address without one, as load_balancing does. Addresses with a scheme are left
// unchanged; see HasScheme.
func WithPort(address string) (string, error) {
	if address == "" {
		return "", errors.New("must be set")
	}
	if HasScheme(address) {
		return address, nil
	}
	return withPort(address, DefaultPort)
}

// HasScheme reports whether gRPC interprets an address itself, such as unix:/run/otlp.sock or dns:///worker:4317.
func HasScheme(address string) bool {
	return strings.Contains(address, "://") || strings.HasPrefix(address, "unix:")
}

func withPort(address, port string) (string, error) {
	if ip, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		return net.JoinHostPort(ip.String(), port), nil
	}
	if !strings.Contains(address, ":") {
		address = net.JoinHostPort(address, port)
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
	if err := CheckPort(port); err != nil {
		return fmt.Errorf("%q: %w", address, err)
	}
	return nil
}

// CheckPort returns an error unless port is a number that a client can connect to.
func CheckPort(port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return nil
}
