// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// bufferSize is what a connection has for reading, and for writing. 1000 records of sums have 120 KB.
const bufferSize = 128 << 10

// Tune sets the options that a Store works best with: context deadlines apply, the client does not retry whole batches (a
// Store retries only what failed), buffers are large, and features of newer servers are off. Addresses, credentials and
// timeouts stay as they are. If there is a MasterName, Tune also wraps the Dialer, so set that before.
func Tune(o *goredis.UniversalOptions) {
	o.PipelinePoolSize = -1 // all we send are pipelines
	o.ReadBufferSize, o.WriteBufferSize = bufferSize, bufferSize
	o.MaxRetries, o.DialerRetries = -1, 1
	o.ContextTimeoutEnabled = true
	o.Protocol, o.DisableIdentity = 2, true // what RESP 3 adds is of no use here
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if o.MasterName != "" {
		o.Dialer = sentinelDialer(o)
	}
}

// sentinelDialer makes connections that are safe to ask a Sentinel on: go-redis 9.23 takes for granted how its answers look, in
// goroutines of its own, and takes the process down if they look otherwise.
func sentinelDialer(o *goredis.UniversalOptions) func(context.Context, string, string) (net.Conn, error) {
	dial := o.Dialer
	if dial == nil {
		timeout := o.DialTimeout
		if timeout == 0 {
			timeout = 5 * time.Second // the client's own default
		}
		dial = goredis.NewDialer(&goredis.Options{DialTimeout: timeout, TLSConfig: o.TLSConfig})
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &sentinelConn{Conn: conn}, nil
	}
}

// sentinelConn fails to read what is no answer to what a Sentinel is asked: for the primary, and for news of it.
type sentinelConn struct {
	net.Conn
	asked atomic.Int32
}

const (
	askedNothing = iota
	askedForPrimary
	askedForNews
)

var (
	primaryQuestion = []byte("get-master-addr-by-name")
	newsQuestion    = []byte("subscribe")
	newsAnswer      = []byte("*3\r\n$9\r\nsubscribe\r\n$")
	errNoSentinel   = errors.New("this is no Sentinel: its answer is not that of one")
)

// Write implements net.Conn.
func (c *sentinelConn) Write(b []byte) (int, error) {
	if len(b) < 4096 { // a batch is longer
		switch {
		case bytes.Contains(b, primaryQuestion):
			c.asked.Store(askedForPrimary)
		case bytes.Contains(b, newsQuestion):
			c.asked.Store(askedForNews)
		}
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *sentinelConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n == 0 {
		return n, err
	}
	begins := func(with string) bool { return bytes.HasPrefix(b[:n], []byte(with)) }
	switch c.asked.Swap(askedNothing) {
	case askedForPrimary:
		if bytes.IndexByte([]byte("*~>|%"), b[0]) >= 0 && !begins("*2\r\n") && !begins("*-1\r\n") {
			return 0, errNoSentinel
		}
	case askedForNews:
		if b[0] != '-' && !bytes.HasPrefix(b[:n], newsAnswer) {
			return 0, errNoSentinel
		}
	}
	return n, err
}
