// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.uber.org/zap"
)

// EjectConfig keeps members that do not accept data out of the ring for a time.
type EjectConfig struct {
	// SharedState says that members share their state, so that any of them can continue a stream and knows what another has
	// already counted. Without shared state, a member that hangs and resumes also counts the data that went to others
	// meanwhile.
	SharedState bool `mapstructure:"shared_state"`

	// Force ejects members although they do not share their state.
	Force bool `mapstructure:"force"`

	// Failures is the number of consecutive requests that must fail. Default 3.
	Failures int `mapstructure:"failures"`

	// After is how long all requests must have failed. Default 10s.
	After time.Duration `mapstructure:"after"`

	// ProbeInterval is the time between probes of an ejected member; a probe is an empty request. At least 100ms. Default
	// 5s.
	ProbeInterval time.Duration `mapstructure:"probe_interval"`

	// ReturnAfter is how long an ejected member must answer all probes before it returns to the ring. It doubles, up to
	// eight times this, for a member that had been back for no longer than that. Default 30s.
	ReturnAfter time.Duration `mapstructure:"return_after"`

	// MaxShare is the largest share of members that may be ejected or failing. If more are, the cause lies elsewhere, and
	// none is ejected. Above 0, below 1. Default 0.34.
	MaxShare float64 `mapstructure:"max_share"`

	// prevent unkeyed literal initialization
	_ struct{}
}

const minProbeInterval = 100 * time.Millisecond

// maxReturns bounds how often ReturnAfter doubles.
const maxReturns = 3

func (c *EjectConfig) validate() error {
	switch {
	case !c.SharedState && !c.Force:
		return errors.New("eject: is for members that share their state: set eject::shared_state to true if their d2c has state::shared; " +
			"else a member that hangs and wakes up counts what others have counted, and only eject::force: true ejects it")
	case c.Failures < 1:
		return fmt.Errorf("eject::failures: must be positive, got %d", c.Failures)
	case c.After < 0:
		return fmt.Errorf("eject::after: must not be negative, got %v", c.After)
	case c.ProbeInterval < minProbeInterval:
		return fmt.Errorf("eject::probe_interval: must be %v at least, got %v", minProbeInterval, c.ProbeInterval)
	case c.ReturnAfter < 0:
		return fmt.Errorf("eject::return_after: must not be negative, got %v", c.ReturnAfter)
	case !(c.MaxShare > 0 && c.MaxShare < 1):
		return fmt.Errorf("eject::max_share: must be above 0 and below 1, got %v", c.MaxShare)
	}
	return nil
}

// ejector keeps members that do not take what they are sent out of the ring. To the rest of the exporter, an ejected member has left:
// what it did not take goes to others, and streams are handed over, as if the resolver did not know it. So gateways that eject the
// same members route alike, and nothing moves again when the resolver drops a member that is out.
type ejector[B batch] struct {
	e   *ringExporter[B]
	cfg *EjectConfig // nil if nobody is ejected

	failing chan *member[B]

	mu     sync.Mutex // held while the members change
	list   []endpoint // as the resolver has them
	out    []*ejection
	recent map[string]comeback // of members that are in the list, by name

	ejected atomic.Int64 // length of out, for telemetry: see keepOut
}

// ejection is a member that is out.
type ejection struct {
	endpoint
	since   time.Time
	returns int // how often ReturnAfter is doubled
	stop    context.CancelFunc
}

// comeback is when a member that had been out came back, and how often ReturnAfter was doubled then.
type comeback struct {
	at      time.Time
	returns int
}

func newEjector[B batch](e *ringExporter[B]) *ejector[B] {
	x := &ejector[B]{e: e, failing: make(chan *member[B], 1), recent: map[string]comeback{}}
	if e.cfg.Eject.HasValue() {
		x.cfg = e.cfg.Eject.Get()
	}
	return x
}

// resolved makes list the members, except those that are out. If that fails, everything stays as it is.
func (x *ejector[B]) resolved(ctx context.Context, list []endpoint) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := make(map[string]string, len(list))
	for _, p := range list {
		at[p.Name] = p.address
	}
	// A member at another address is another process. Of those that are still there, the first remain out, as many as may be.
	var out []*ejection
	for _, gone := range x.out {
		if address, ok := at[gone.Name]; ok && address == gone.address && len(out) < x.limit(list) {
			out = append(out, gone)
		}
	}
	if err := x.e.apply(ctx, without(list, out)); err != nil {
		return err
	}
	for _, was := range x.out {
		if !slices.Contains(out, was) {
			x.end(was)
		}
	}
	if x.cfg != nil && x.limit(list) == 0 {
		x.e.set.Logger.Warn("eject has no effect: with so few members none may be out; raise eject::max_share",
			zap.Int("members", len(list)), zap.Float64("max_share", x.cfg.MaxShare))
	}
	x.list = list
	x.keepOut(out)
	for name := range x.recent {
		if _, ok := at[name]; !ok {
			delete(x.recent, name)
		}
	}
	return nil
}

// without returns the members of a list that are not out.
func without(list []endpoint, out []*ejection) []endpoint {
	return slices.DeleteFunc(slices.Clone(list), func(p endpoint) bool {
		return slices.ContainsFunc(out, func(x *ejection) bool { return x.Name == p.Name })
	})
}

// limit is how many members of a list may be out or in trouble.
func (x *ejector[B]) limit(list []endpoint) int {
	owners := 0
	for _, p := range list {
		if p.Weight > 0 {
			owners++
		}
	}
	return shareOf(x.cfg.MaxShare, owners)
}

// shareOf is a share of n, rounded down: less than all. What floating point makes of a share that is a whole number, such as 0.29 of 100,
// is that number.
func shareOf(share float64, n int) int {
	return max(min(int(share*float64(n)+1e-9), n-1), 0)
}

// failed is told of each attempt that a member did not answer, since when all have failed, and how many these are.
func (x *ejector[B]) failed(m *member[B], since time.Time, failures int) {
	if x.cfg == nil || failures < x.cfg.Failures || time.Since(since) < x.cfg.After {
		return
	}
	select {
	case x.failing <- m:
	default: // its next failure will tell
	}
}

// watch ejects members until ctx is done.
func (x *ejector[B]) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-x.failing:
			x.eject(ctx, m)
		}
	}
}

// eject takes a member out of the ring, if it may.
func (x *ejector[B]) eject(ctx context.Context, m *member[B]) {
	x.mu.Lock()
	defer x.mu.Unlock()
	failures, since := m.failing()
	if m.hasLeft() || failures == 0 {
		return // meanwhile
	}
	log := x.e.set.Logger.With(zap.String("member", m.Name))
	trouble := len(x.out)
	for _, other := range x.e.current.Load().members {
		if n, _ := other.failing(); n > 0 && other.Weight > 0 {
			trouble++
		}
	}
	if limit := x.limit(x.list); trouble > limit {
		if !m.spared.Swap(true) {
			why := "because more are in trouble than may be out: the trouble may not be theirs; see eject::max_share"
			if limit == 0 {
				why = "with so few members none may be out; raise eject::max_share"
			}
			log.Warn("a member that does not answer is not ejected, "+why, zap.Int("in_trouble", trouble), zap.Int("may_be_out", limit))
			m.count.ejection(ctx, m.count.ejectionWithheld)
		}
		return
	}
	gone := &ejection{endpoint: m.endpoint, since: time.Now()}
	if back, ok := x.recent[m.Name]; ok && gone.since.Sub(back.at) <= x.returnAfter(back.returns) {
		gone.returns = min(back.returns+1, maxReturns)
	}
	out := append(slices.Clip(x.out), gone)
	// Members outlive ctx.
	if err := x.e.apply(context.WithoutCancel(ctx), without(x.list, out)); err != nil {
		log.Error("a member could not be ejected", zap.Error(err))
		return
	}
	x.keepOut(out)
	delete(x.recent, m.Name)
	err := m.lastError()
	log.Warn("a member is ejected: its streams go to others until it answers", zap.Int("failures", failures),
		zap.Stringer("for", time.Since(since)), zap.Stringer("return_after", x.returnAfter(gone.returns)), zap.Error(err))
	x.e.shared.health.report(about(gone), fmt.Errorf("member %q: ejected since %s: %w", m.Name, gone.since.UTC().Format(time.RFC3339), err))
	m.count.ejection(ctx, m.count.ejectionBegun)
	ctx, gone.stop = context.WithCancel(ctx)
	x.e.following.Go(func() { x.probe(ctx, gone) })
}

func about(gone *ejection) string { return "ejected " + gone.Name }

func (x *ejector[B]) returnAfter(doubled int) time.Duration { return x.cfg.ReturnAfter << doubled }

// end stops the probes of an ejection.
func (x *ejector[B]) end(gone *ejection) {
	gone.stop()
	x.e.shared.health.report(about(gone), nil)
}

// probe asks a member that is out until it has answered for long enough, and is back, or ctx is done.
func (x *ejector[B]) probe(ctx context.Context, gone *ejection) {
	defer gone.stop()
	e := x.e
	log := e.set.Logger.With(zap.String("member", gone.Name))
	var conn *connection[B]
	defer func() {
		if conn != nil {
			_ = conn.close()
		}
	}()
	ticker := time.NewTicker(x.cfg.ProbeInterval)
	defer ticker.Stop()
	var answers time.Time // since when it does
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if conn == nil {
			var err error
			if conn, err = dial(ctx, e.host, e.set, e.cfg.Protocol.OTLP, gone.endpoint, nil, e.signal); err != nil {
				log.Error("an ejected member cannot be probed; that is tried again", zap.Error(err)) // a file may be back
				continue
			}
		}
		conn.conn.ResetConnectBackoff() // which grows to minutes while nobody is there
		_, err := conn.send(ctx, e.signal.empty())
		switch {
		case ctx.Err() != nil:
			return
		case !answered(err):
			answers = time.Time{}
			continue
		case answers.IsZero():
			answers = time.Now()
			log.Info("the ejected member answers", zap.Stringer("back_in", x.returnAfter(gone.returns)))
		}
		if time.Since(answers) >= x.returnAfter(gone.returns) && x.restore(ctx, gone) {
			return
		}
	}
}

// answered reports whether a member has said something about itself: that it refuses a request, or wants to be spared for a time, is an answer.
func answered(err error) bool {
	return err == nil || consumererror.IsPermanent(err) || requestedDelay(err) > 0
}

// restore takes a member back into the ring, unless it is no longer a member. It reports whether nothing more is to be done.
func (x *ejector[B]) restore(ctx context.Context, gone *ejection) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := slices.Index(x.out, gone)
	if at < 0 {
		return true
	}
	out := slices.Delete(slices.Clone(x.out), at, at+1)
	if err := x.e.apply(context.WithoutCancel(ctx), without(x.list, out)); err != nil {
		x.e.set.Logger.Error("an ejected member could not be taken back", zap.String("member", gone.Name), zap.Error(err))
		return false
	}
	x.keepOut(out)
	x.recent[gone.Name] = comeback{time.Now(), gone.returns}
	x.e.set.Logger.Info("an ejected member is back", zap.String("member", gone.Name), zap.Stringer("was_out", time.Since(gone.since)))
	if m := x.e.current.Load().byName(gone.Name); m != nil {
		m.count.ejection(ctx, m.count.ejectionEnded)
	}
	x.end(gone)
	return true
}

// keepOut makes these the members that are out. Their number is apart from them, without the mutex: whoever reads metrics has locked the
// meter, and members that are started meanwhile, under the mutex, need it.
func (x *ejector[B]) keepOut(out []*ejection) {
	x.out = out
	x.ejected.Store(int64(len(out)))
}
