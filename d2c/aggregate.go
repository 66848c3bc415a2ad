// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/streamid"
)

// AggregateRule makes one stream out of many: an exact total of what all its writers count. See Aggregation in the package
// comment.
type AggregateRule struct {
	// Metrics are patterns of names, in which * matches anything and ? any one byte. Gauges and summaries pass, whatever
	// their names.
	Metrics []string
	// Resource, Scope and Attributes select which attributes of resources, scopes and points remain. Streams that differ
	// only in the removed ones are the writers of one total.
	Resource, Scope, Attributes streamid.Selection
	// KeepInput also gives out the matched metrics as if there were no rule. Their points are then counted twice, once for
	// their own stream and once as those of a writer.
	KeepInput bool
	// Interval makes EmitTotals emit the samples of totals, instead of each batch. Zero emits them with each batch;
	// otherwise at least a second.
	Interval time.Duration
	// MaxWriters bounds the writers of a total; points of further ones are dropped and counted. Zero means no bound.
	MaxWriters int
}

// maxRules is how many rules there may be.
const maxRules = 250

// aggregates returns what the rules say, nil if there are none.
func (c Config) aggregates() (*aggregates, error) {
	if len(c.Aggregate) == 0 {
		return nil, nil
	}
	if len(c.Aggregate) > maxRules {
		return nil, fmt.Errorf("d2c: Aggregate: %d rules, at most %d", len(c.Aggregate), maxRules)
	}
	list := make([]streamid.Rule, len(c.Aggregate))
	a := &aggregates{}
	for i := range c.Aggregate {
		r := &c.Aggregate[i]
		switch {
		case r.Interval != 0 && r.Interval < time.Second:
			return nil, fmt.Errorf("d2c: Aggregate: rule %d: Interval: must be 0 or a second at least, got %v", i, r.Interval)
		case r.Interval != 0 && c.MaxStale != 0 && r.Interval >= c.MaxStale:
			return nil, fmt.Errorf("d2c: Aggregate: rule %d: Interval: must be less than MaxStale, or totals are forgotten before they are given out", i)
		case r.MaxWriters < 0:
			return nil, fmt.Errorf("d2c: Aggregate: rule %d: MaxWriters: must not be negative, got %d", i, r.MaxWriters)
		}
		list[i] = streamid.Rule{Metrics: r.Metrics, Resource: r.Resource, Scope: r.Scope, Point: r.Attributes}
		for _, p := range r.Metrics {
			a.patterns = append(a.patterns, &pattern{rule: i, text: p})
		}
		a.KeepInput, a.Held = append(a.KeepInput, r.KeepInput), append(a.Held, r.Interval > 0)
		a.MaxWriters, a.intervals = append(a.MaxWriters, r.MaxWriters), append(a.intervals, r.Interval)
	}
	rules, err := streamid.NewRules(list)
	if err != nil {
		return nil, fmt.Errorf("d2c: Aggregate: %w", err)
	}
	for i := range list {
		a.Rules = append(a.Rules, rules.At(i))
	}
	a.Find = a.find
	return a, nil
}

// aggregates is Config.Aggregate, ready for use.
type aggregates struct {
	points.Aggregates
	patterns  []*pattern
	intervals []time.Duration // by rule
}

// pattern is one of a rule's.
type pattern struct {
	rule int
	text string
	met  atomic.Bool // some metric
}

func (a *aggregates) find(name string) int {
	for _, p := range a.patterns {
		if streamid.MatchAny([]string{p.text}, name) {
			if !p.met.Load() {
				p.met.Store(true)
			}
			return p.rule
		}
	}
	return -1
}

// held reports whether some rule has an interval.
func (a *aggregates) held() bool {
	for _, held := range a.Held {
		if held {
			return true
		}
	}
	return false
}

// UnmetPatterns returns the patterns of Config.Aggregate that have matched no metric so far.
func (c *Converter) UnmetPatterns() (patterns []string) {
	if c.aggregates != nil {
		for _, p := range c.aggregates.patterns {
			if !p.met.Load() {
				patterns = append(patterns, p.text)
			}
		}
	}
	return patterns
}

// EmitTotals emits the latest sample, at the current time, of each total whose rule has the given interval, including quiet
// totals until they expire. It calls give with batches of at most a thousand samples, one after the other, each with a
// context that carries the tenant. It stops at an error of give, of the store or of ctx, and returns how many samples give
// accepted; the rest is included in the next sample, an interval later. Call it once per interval, and once more when no
// batch follows, but never twice at the same time. Convert emits nothing for these totals, so there is no order to keep
// between the two.
//
// The attributes of a total come from its latest point and are not stored, so after a restart a total waits for its next
// point. With shared state each worker that has counted a total emits it, at rising times. With GapRestartIfMoved a total
// that was not counted since the ring changed is emitted once more if some of it was not given out yet, at the time of its
// latest point instead of the current time, and then left alone, because it may have another life elsewhere.
func (c *Converter) EmitTotals(ctx context.Context, interval time.Duration, give func(ctx context.Context, md pmetric.Metrics) error) (n int, err error) {
	if c.aggregates == nil || interval <= 0 {
		return 0, nil
	}
	var rules [256]bool
	any := false
	for i, of := range c.aggregates.intervals {
		if of == interval {
			rules[i+1], any = true, true
		}
	}
	if !any {
		return 0, errors.New("d2c: EmitTotals: no rule has this Interval")
	}
	return c.pipeline.EmitTotals(ctx, &rules, byTenant(ctx, give))
}
