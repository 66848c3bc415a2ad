// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store/redis"
)

// connect does not wait for a connection. plain is for any address, as long as there is no tlsConfig.
func connect(cfg *Config, tlsConfig *tls.Config, plain bool) goredis.UniversalClient {
	opt := goredis.UniversalOptions{
		Addrs:            cfg.endpoints(),
		MasterName:       cfg.Sentinel.MasterName,
		SentinelUsername: cfg.Sentinel.Username,
		SentinelPassword: string(cfg.Sentinel.Password),
		Username:         cfg.Username,
		Password:         string(cfg.Password),
		DB:               cfg.Database,
		Dialer:           dialer(cfg.DialTimeout, tlsConfig, plain),
		DialTimeout:      cfg.DialTimeout,
		ReadTimeout:      cfg.ReadTimeout,
		WriteTimeout:     cfg.WriteTimeout,
		PoolSize:         cfg.PoolSize,
	}
	redis.Tune(&opt)
	if cfg.WaitReplicas > 0 {
		opt.ReadTimeout += cfg.WaitTimeout
	}
	switch cfg.Mode {
	case ModeCluster:
		return goredis.NewClusterClient(opt.Cluster())
	case ModeSentinel:
		return goredis.NewFailoverClient(opt.Failover())
	default:
		return goredis.NewClient(opt.Simple())
	}
}

// options are those of a store with the name.
func (c *Config) options(name string) redis.Options {
	return redis.Options{
		Name:         name,
		Server:       strings.Join(c.endpoints(), ","),
		Prefix:       c.Prefix,
		TTL:          c.RecordTTL,
		Timeout:      c.Timeout,
		MaxRetries:   c.MaxRetries,
		WaitReplicas: c.WaitReplicas,
		WaitTimeout:  c.WaitTimeout,
	}
}

// logOptions are those of a log with the name.
func (c *Config) logOptions(name string) redis.Options {
	opts := c.options(name)
	opts.TTL = 0 // that is a matter of the store on it
	return opts
}

// dialer connects with TLS if there is a configuration for it. If not it connects to this machine only, unless plain is meant
// for others: Sentinels and Clusters name servers of which Config.Validate knows nothing.
func dialer(timeout time.Duration, cfg *tls.Config, plain bool) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if cfg != nil {
			return dialTLS(ctx, d, cfg, network, address)
		}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil || plain {
			return conn, err
		}
		if to, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !to.IP.IsLoopback() {
			_ = conn.Close()
			return nil, fmt.Errorf("%s is not a loopback address: configure tls, or write out insecure: true under it", address)
		}
		return conn, nil
	}
}

// dialTLS is like tls.Dialer, but its errors tell a server that cannot be reached from one that does not speak TLS: that waits
// for the end of a line and says nothing.
func dialTLS(ctx context.Context, d *net.Dialer, cfg *tls.Config, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	raw, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("TLS handshake with %s: no answer; does it expect TLS on this port?", address)
		}
		return nil, fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	return conn, nil
}
