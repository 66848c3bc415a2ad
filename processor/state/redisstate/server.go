// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// server is one server, or all that make a Cluster. It is safe for concurrent use.
type server struct {
	single  *redis.Client        // one of these
	cluster *redis.ClusterClient // is nil

	name         string // for errors
	timeout      time.Duration
	maxRetries   int
	waitReplicas int
	waitTimeout  time.Duration
	closing      chan struct{}
}

// call is one run of a script. All its keys are in one hash slot, if there are several servers.
type call struct {
	script *script
	args   []any  // room for two, the number of keys, the keys, the arguments
	key    string // one of the keys
	ops    []int32
	anew   int // of how many ops, the first ones, the expiry begins anew

	whole  bool // the server does not know the script
	moved  bool // the slot has moved
	apart  bool // the slot is being moved: the only key may be here or there
	answer any
	err    error
}

// bufferSize is what a connection has for reading, and for writing. 1000 records of sums have 120 KB.
const bufferSize = 128 << 10

// connect does not wait for a connection. plain is for any address, as long as there is no tlsConfig.
func connect(cfg *Config, tlsConfig *tls.Config, plain bool) *server {
	s := &server{
		name:         strings.Join(cfg.endpoints(), ","),
		timeout:      cfg.Timeout,
		maxRetries:   cfg.MaxRetries,
		waitReplicas: cfg.WaitReplicas,
		waitTimeout:  cfg.WaitTimeout,
		closing:      make(chan struct{}),
	}
	opt := redis.UniversalOptions{
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
		// All we send are pipelines.
		PipelinePoolSize: -1,
		ReadBufferSize:   bufferSize,
		WriteBufferSize:  bufferSize,
		// Ours send again what has failed, not all of a batch.
		MaxRetries:            -1,
		DialerRetries:         1,
		ContextTimeoutEnabled: true,
		// What RESP 3 adds is of no use here.
		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if s.waitReplicas > 0 {
		opt.ReadTimeout += s.waitTimeout
	}
	switch cfg.Mode {
	case ModeCluster:
		s.cluster = redis.NewClusterClient(opt.Cluster())
	case ModeSentinel:
		s.single = redis.NewFailoverClient(opt.Failover())
	default:
		s.single = redis.NewClient(opt.Simple())
	}
	return s
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

// close makes whatever is under way fail.
func (s *server) close() error {
	close(s.closing)
	if s.cluster != nil {
		return s.cluster.Close()
	}
	return s.single.Close()
}

// run does all calls and returns them with their answers, in any order. After an error any of them may have been done, and
// some twice. split makes calls with one key each of one with several, or is nil; retries is how many were sent again.
func (s *server) run(ctx context.Context, calls []*call, split func(*call) []*call) (done []*call, retries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	done = make([]*call, 0, len(calls))
	var wrong error
	for attempt := 0; ; {
		s.send(ctx, calls)
		var rest []*call
		var failed error
		for _, c := range calls {
			switch {
			case c.err == nil:
				done = append(done, c)
			case !c.whole && says(c.err, "NOSCRIPT"):
				c.whole = true
				rest = append(rest, c)
			case !c.moved && s.waitReplicas == 0 && says(c.err, "MOVED"):
				c.moved = true
				s.cluster.ReloadState(ctx)
				rest = append(rest, c)
			case !c.apart && split != nil && (says(c.err, "ASK") || says(c.err, "TRYAGAIN")):
				rest = append(rest, split(c)...)
			case mayPass(c.err):
				failed = c.err
				rest = append(rest, c)
				retries++
			default:
				return nil, retries, c.err
			}
		}
		if len(rest) == 0 {
			return done, retries, nil
		}
		calls = rest
		if failed == nil {
			continue
		}
		if wrong == nil || ctx.Err() == nil {
			wrong = failed // and not that the time for all attempts is over: what was wrong before says more
		}
		if s.cluster != nil {
			s.cluster.ReloadState(ctx)
		}
		if attempt == s.maxRetries || !s.pause(ctx, attempt) {
			return nil, retries, wrong
		}
		attempt++
	}
}

// pause waits for longer with each attempt, and reports whether there may be another.
func (s *server) pause(ctx context.Context, attempt int) bool {
	const shortest, longest = 50 * time.Millisecond, 500 * time.Millisecond
	d := min(shortest<<min(attempt, 10), longest)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-s.closing:
	}
	return false
}

// send sends each of the calls once, those for one server together, and returns when all have an answer or an error.
func (s *server) send(ctx context.Context, calls []*call) {
	if s.single != nil {
		s.pipeline(ctx, s.single, calls)
		return
	}
	parts := map[*redis.Client][]*call{}
	var strays []*call
	for _, c := range calls {
		if c.moved || c.apart {
			strays = append(strays, c)
			continue
		}
		node, err := s.cluster.MasterForKey(ctx, c.key)
		if err != nil {
			c.err = err
			continue
		}
		parts[node] = append(parts[node], c)
	}
	var wg sync.WaitGroup
	for node, calls := range parts {
		wg.Go(func() { s.pipeline(ctx, node, calls) })
	}
	for _, c := range strays {
		s.follow(ctx, c)
	}
	wg.Wait()
}

// maxPipeline bounds the calls that are sent together. What takes longer to write or to answer than the timeouts of an attempt
// would never succeed, however often it is sent; this many take the server a twentieth of a second.
const maxPipeline = 40

// pipeline sends the calls to one server.
func (s *server) pipeline(ctx context.Context, node *redis.Client, calls []*call) {
	var err error
	for len(calls) > 0 && (err == nil || fromServer(err)) {
		n := min(len(calls), maxPipeline)
		err = s.exec(ctx, node, calls[:n])
		calls = calls[n:]
	}
	for _, c := range calls {
		c.err = err // and to wait for each to fail would take as many timeouts
	}
}

// exec sends the calls to one server at once, and returns an error of any of them.
func (s *server) exec(ctx context.Context, node *redis.Client, calls []*call) error {
	pipe := node.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, c := range calls {
		cmds[i] = c.command(ctx)
		_ = pipe.Process(ctx, cmds[i])
	}
	var replicas *redis.IntCmd
	if s.waitReplicas > 0 {
		// WAIT is about all that the server had written when it last ran a command of this connection: also what others
		// have written and a call has but read.
		replicas = redis.NewIntCmd(ctx, "wait", s.waitReplicas, s.waitTimeout.Milliseconds())
		_ = pipe.Process(ctx, replicas)
	}
	_, err := pipe.Exec(ctx)
	for i, c := range calls {
		c.answer, c.err = cmds[i].Result()
		if c.err == nil && c.answer == nil {
			c.err = err // a server that refuses the connection is not an error of the commands
		}
		if c.err == nil && replicas != nil {
			c.err = s.replicated(replicas)
		}
	}
	return err
}

// errReplicas says that too few replicas have confirmed in time.
type errReplicas struct {
	got, want int
	within    time.Duration
}

func (e errReplicas) Error() string {
	return fmt.Sprintf("%d of %d replicas confirmed within %v (wait_replicas, wait_timeout)", e.got, e.want, e.within)
}

func (s *server) replicated(cmd *redis.IntCmd) error {
	got, err := cmd.Result()
	if err == nil && int(got) < s.waitReplicas {
		err = errReplicas{int(got), s.waitReplicas, s.waitTimeout}
	}
	return err
}

// follow sends a call to wherever its keys are at this moment: the client knows the slots only as they were a while ago, but
// it goes where a server says.
func (s *server) follow(ctx context.Context, c *call) {
	if s.waitReplicas > 0 {
		// It does not say on which connection it has been there.
		c.err = errMoving
		return
	}
	cmd := c.command(ctx)
	_ = s.cluster.Process(ctx, cmd)
	c.answer, c.err = cmd.Result()
}

func (c *call) command(ctx context.Context) *redis.Cmd {
	if c.whole {
		c.args[0], c.args[1] = "eval", c.script.source
	} else {
		c.args[0], c.args[1] = "evalsha", c.script.hash
	}
	return redis.NewCmd(ctx, c.args...)
}
