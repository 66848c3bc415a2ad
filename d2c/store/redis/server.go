// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// topology is how servers are organised: all that the modes differ in.
type topology interface {
	// groups is how many parts can be lost apart.
	groups() int
	// node returns the server of a key.
	node(ctx context.Context, key string) (*goredis.Client, error)
	// follow sends a command to wherever its key is at this moment, and goes where a server says.
	follow(ctx context.Context, cmd goredis.Cmder)
	// reload learns anew where keys are.
	reload(ctx context.Context)
	// moves reports whether keys can be elsewhere than node says.
	moves() bool
	// judge returns the error with what to configure, if it comes of servers that are of another kind.
	judge(err error) error
	// readTimeout is what the client waits for an answer.
	readTimeout() time.Duration
	// address is for errors.
	address() string
}

// topologyOf returns what the client is for.
func topologyOf(client goredis.UniversalClient) (topology, error) {
	switch c := client.(type) {
	case *goredis.Client:
		if c != nil {
			return one{c}, nil
		}
	case *goredis.ClusterClient:
		if c != nil {
			return many{c}, nil
		}
	}
	return nil, fmt.Errorf("redis: client: want a *redis.Client or a *redis.ClusterClient, got %T", client)
}

// one is one server, or whatever looks like one; Sentinels may say which.
type one struct{ client *goredis.Client }

func (o one) groups() int                                           { return 1 }
func (o one) node(context.Context, string) (*goredis.Client, error) { return o.client, nil }
func (o one) follow(ctx context.Context, cmd goredis.Cmder)         { _ = o.client.Process(ctx, cmd) }
func (o one) reload(context.Context)                                {}
func (o one) moves() bool                                           { return false }
func (o one) readTimeout() time.Duration                            { return o.client.Options().ReadTimeout }
func (o one) address() string                                       { return o.client.Options().Addr }

func (o one) judge(err error) error {
	switch {
	case saysAny(err, "MOVED", "ASK", "CLUSTERDOWN", "CROSSSLOT", "TRYAGAIN"):
		return modeError{"this is a node of a Cluster: set mode: cluster (in Go, give a ClusterClient)", err}
	case unknownCommand(err, "eval"), unknownCommand(err, "hmget"):
		return modeError{"this server keeps no data: if it is a Sentinel, set mode: sentinel (in Go, give a FailoverClient)", err}
	case notSentinel(err):
		return modeError{"this is no Sentinel: set mode: standalone, or name the Sentinels", err}
	}
	return err
}

// many are the servers of a Cluster.
type many struct{ client *goredis.ClusterClient }

func (m many) groups() int                                   { return slotGroups }
func (m many) follow(ctx context.Context, cmd goredis.Cmder) { _ = m.client.Process(ctx, cmd) }
func (m many) reload(ctx context.Context)                    { m.client.ReloadState(ctx) }
func (m many) moves() bool                                   { return true }
func (m many) readTimeout() time.Duration                    { return m.client.Options().ReadTimeout }
func (m many) address() string                               { return strings.Join(m.client.Options().Addrs, ",") }

func (m many) node(ctx context.Context, key string) (*goredis.Client, error) {
	var node *goredis.Client
	err := guarded(func() (err error) {
		node, err = m.client.MasterForKey(ctx, key)
		return err
	})
	if err == nil && node == nil {
		err = errAnswer
	}
	return node, err
}

func (m many) judge(err error) error {
	if fromServer(err) && strings.Contains(err.Error(), "cluster support disabled") || unknownCommand(err, "cluster") {
		return modeError{"this is no node of a Cluster: set mode: standalone or sentinel (in Go, give another client)", err}
	}
	return err
}

// unknownCommand reports whether a server does not know the command, or those that begin like it.
func unknownCommand(err error, name string) bool {
	text := strings.ToLower(errorText(err))
	_, after, found := strings.Cut(text, "unknown command")
	return found && strings.Contains(after, name)
}

// notSentinel reports whether what was asked as a Sentinel is none. The client wraps what it was told in words of its own.
func notSentinel(err error) bool {
	return unknownCommand(err, "sentinel") || errors.Is(err, errNoSentinel)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// server is one server, or all that make a Cluster. It is safe for concurrent use.
type server struct {
	topology
	name         string // for errors
	timeout      time.Duration
	maxRetries   int
	waitReplicas int
	waitTimeout  time.Duration
}

// call is one run of a script, or a command that changes nothing. All its keys are in one hash slot, if there are several servers.
type call struct {
	script *script // nil for a command
	args   []any   // room for two, the number of keys, the keys, the arguments; or the command
	key    string  // one of the keys

	// What a call for swaps, or to read records, is about.
	group  int
	swaps  []int32
	behind bool // it has the key of older records

	// What a call for appends is about: as many of them, from the first on.
	first, count int

	light bool // takes little time, so that many may go out together
	large bool // takes more time to write or to answer than the client has for an attempt
	again bool // it was sent, and may have been done, before it was sent last

	whole  bool // the server does not know the script
	moved  bool // the slot has moved
	apart  bool // the slot is being moved: the keys may be here or there
	answer any
	err    error
}

// run does all calls and returns them with their answers, in any order. After an error any of them may have been done, and
// some twice. retries is how many were sent again.
func (s *server) run(ctx context.Context, calls []*call) (done []*call, retries int, err error) {
	done = make([]*call, 0, len(calls))
	var wrong error
	for attempt := 0; ; {
		s.send(ctx, calls)
		var rest []*call
		var failed error
		for _, c := range calls {
			if c.err != nil {
				c.err = s.judge(c.err)
			}
			switch {
			case c.err == nil:
				done = append(done, c)
			case !c.whole && says(c.err, "NOSCRIPT"):
				c.whole = true
				rest = append(rest, c)
			case s.moves() && !c.moved && s.waitReplicas == 0 && says(c.err, "MOVED"):
				c.moved = true
				s.reload(ctx)
				rest = append(rest, c)
			case s.moves() && !c.apart && saysAny(c.err, "ASK", "TRYAGAIN"):
				c.apart = true
				rest = append(rest, c)
			case mayPass(c.err):
				failed = c.err
				c.again = true
				rest = append(rest, c)
				retries++
			case c.script == nil && says(c.err, "WRONGTYPE"):
				return nil, retries, fmt.Errorf("%w: %s", c.err, c.key)
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
		s.reload(ctx)
		if attempt >= s.maxRetries || !pause(ctx, attempt) {
			return nil, retries, wrong
		}
		attempt++
	}
}

// pause waits for longer with each attempt, and reports whether there may be another.
func pause(ctx context.Context, attempt int) bool {
	const shortest, longest = 50 * time.Millisecond, 500 * time.Millisecond
	d := min(shortest<<min(attempt, 10), longest)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	}
	return false
}

// send sends each of the calls once, those for one server together, and returns when all have an answer or an error.
func (s *server) send(ctx context.Context, calls []*call) {
	parts := map[*goredis.Client][]*call{}
	var strays []*call
	for _, c := range calls {
		if c.moved || c.apart {
			strays = append(strays, c)
			continue
		}
		node, err := s.node(ctx, c.key)
		if err != nil {
			c.err = err
			continue
		}
		parts[node] = append(parts[node], c)
	}
	if len(parts) == 1 && len(strays) == 0 {
		for node, calls := range parts {
			s.pipeline(ctx, node, calls)
		}
		return
	}
	var wg sync.WaitGroup
	for node, calls := range parts {
		wg.Go(func() { s.pipeline(ctx, node, calls) })
	}
	for _, c := range strays {
		s.stray(ctx, c)
	}
	wg.Wait()
}

// maxPipeline bounds the calls that are sent together. What takes longer to write or to answer than the timeouts of an attempt
// would never succeed, however often it is sent; this many take the server a twentieth of a second.
const maxPipeline = 40

// pipeline sends the calls to one server.
func (s *server) pipeline(ctx context.Context, node *goredis.Client, calls []*call) {
	var err error
	for len(calls) > 0 && (err == nil || fromServer(err)) {
		n := min(len(calls), maxPipeline)
		if calls[0].light {
			n = len(calls)
		}
		err = s.exec(ctx, node, calls[:n])
		calls = calls[n:]
	}
	for _, c := range calls {
		c.err = err // and to wait for each to fail would take as many timeouts
	}
}

// exec sends the calls to one server at once, and returns an error of any of them.
func (s *server) exec(ctx context.Context, node *goredis.Client, calls []*call) error {
	if slices.ContainsFunc(calls, func(c *call) bool { return c.large }) {
		node = node.WithTimeout(s.timeout)
	}
	pipe := node.Pipeline()
	cmds := make([]*goredis.Cmd, len(calls))
	for i, c := range calls {
		cmds[i] = c.command(ctx)
		_ = pipe.Process(ctx, cmds[i])
	}
	var replicas *goredis.IntCmd
	if s.waitReplicas > 0 && calls[0].script != nil {
		// WAIT is about all that the server had written when it last ran a command of this connection: also what others
		// have written and a call has but read.
		replicas = goredis.NewIntCmd(ctx, "wait", s.waitReplicas, s.waitTimeout.Milliseconds())
		_ = pipe.Process(ctx, replicas)
	}
	err := guarded(func() error {
		_, err := pipe.Exec(ctx)
		return err
	})
	for i, c := range calls {
		c.answer, c.err = answerOf(cmds[i])
		if c.err == nil && c.answer == nil {
			c.err = err // a server that refuses the connection is not an error of the commands
			if c.err == nil {
				c.err = errAnswer
			}
		}
		if c.err == nil && replicas != nil {
			c.err = s.replicated(replicas)
		}
	}
	return err
}

// guarded returns an error where the client panics. It makes room for whatever length a server announces, and panics if there
// is no such length.
func guarded(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", errAnswer, p)
		}
	}()
	return call()
}

// answerOf returns what came back. No script of ours answers nil: a server that does is another one.
func answerOf(cmd *goredis.Cmd) (any, error) {
	answer, err := cmd.Result()
	if errors.Is(err, goredis.Nil) {
		err = errAnswer
	}
	return answer, err
}

func (s *server) replicated(cmd *goredis.IntCmd) error {
	got, err := cmd.Result()
	if errors.Is(err, goredis.Nil) {
		err = errAnswer
	}
	if err == nil && int(got) < s.waitReplicas {
		err = replicasError{int(got), s.waitReplicas, s.waitTimeout}
	}
	return err
}

// stray sends a call to wherever its keys are at this moment: the client knows the slots only as they were a while ago.
func (s *server) stray(ctx context.Context, c *call) {
	if s.waitReplicas > 0 {
		// It does not say on which connection it has been there.
		c.err = errMoving
		return
	}
	cmd := c.command(ctx)
	if c.err = guarded(func() error { s.follow(ctx, cmd); return nil }); c.err != nil {
		return
	}
	if c.answer, c.err = answerOf(cmd); c.err == nil && c.answer == nil {
		c.err = errAnswer
	}
}

func (c *call) command(ctx context.Context) *goredis.Cmd {
	if c.script == nil {
		return goredis.NewCmd(ctx, c.args...)
	}
	if c.whole {
		c.args[0], c.args[1] = "eval", c.script.source
	} else {
		c.args[0], c.args[1] = "evalsha", c.script.hash
	}
	return goredis.NewCmd(ctx, c.args...)
}
