// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package ports finds ports for servers that tests, benchmarks and demos start, restart and kill.
package ports

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// given are the ports that Free has returned. Several are asked for before any of them is listened at.
var given sync.Map

// Free returns a loopback port that was free a moment ago, and each only once. It lies below the ports from which the system takes those of
// outgoing connections, so that a server that comes back finds its own still free.
func Free() (int, error) {
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, err
		}
		if _, before := given.LoadOrStore(port, true); !before {
			return port, nil
		}
	}
	return 0, errors.New("no free port")
}
