// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/internal/points"
	"github.com/deltaring/deltaring/d2c/internal/shared"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// SharedConfig says how a Converter shares its state with others.
type SharedConfig struct {
	Store store.Shared
	// Owner is the name under which the state is kept; the Converters that share it have the same. Its identity, with
	// Config.Seed and the encoding of identities, is part of every record: a record of another owner is set aside.
	Owner string
	// MaxOutstanding says what to do while Store fails. Zero is to refuse batches: nothing is lost, and nothing given out.
	// Otherwise batches are given out from what this Converter knows, and this many delta points at most are kept until the
	// store is back: totals end exact, but what is outstanding is lost if the process ends.
	//
	// A stream that this Converter does not know when the outage begins is a life of its own: it restarts, visibly, and what
	// comes of it from before the outage is kept and not given out. It is for streams of which one Converter sees all. Where
	// several see a stream, values under one start may fall while it lasts, and deltas that came by turns are missed: to whoever
	// commits first each turn of another is a gap, of which a stream keeps four. Stats.Missed counts these.
	MaxOutstanding int
	// OnDamaged, if not nil, is told of a record that could not be read and was set aside.
	OnDamaged func(id streamid.ID, err error)
	// OnOutage, if not nil, is told the error with which an outage begins, and nil when all is stored again. It is called only
	// where MaxOutstanding is set.
	OnOutage func(err error)
}

// OpenShared returns a Converter that shares its state with all others that share the store. What it keeps in memory is a cache:
// Config.MaxStale says when to drop from it, and how long the store keeps a record is the store's own business. Convert returns
// when the store has whatever the result counts as added. Any Converter can take any delta of any stream; totals and starts
// continue wherever the next delta comes in, and a retry that comes in elsewhere is recognised. See "Shared state" in the
// package comment for what happens where the store loses something.
//
// It asks the store for its life, for as long as ctx lasts, and returns a Converter even if there is no answer: then each
// batch asks again. A store without a life gets one that begins now: deltas that end before, or within a second, are
// too late.
func OpenShared(ctx context.Context, cfg Config, sc SharedConfig) (*Converter, error) {
	if sc.Store == nil {
		return nil, errors.New("d2c: SharedConfig.Store: must not be nil")
	}
	if sc.MaxOutstanding < 0 {
		return nil, fmt.Errorf("d2c: SharedConfig.MaxOutstanding: must not be negative, got %d", sc.MaxOutstanding)
	}
	if sc.MaxOutstanding > 0 && len(cfg.Aggregate) > 0 {
		return nil, errors.New("d2c: SharedConfig.MaxOutstanding: not with Config.Aggregate, whose totals have many workers' points: leave it at 0, and batches are refused while the store fails")
	}
	if cfg.Gap == GapRestartIfMoved {
		return nil, errors.New("d2c: Gap: with shared state a stream's worker does not matter, leave it at GapContinue")
	}
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	c.pipeline.Table.Tag()
	c.shared = shared.New(&c.pipeline, sc.Store, table.IdentityOf(c.pipeline.Reading.Seed, sc.Owner), sc.OnDamaged)
	if sc.MaxOutstanding > 0 {
		c.outage = shared.NewOutage(c.shared, sc.MaxOutstanding, sc.OnOutage)
		c.pipeline.Keep(c.outage, nil)
	} else {
		c.pipeline.Keep(c.shared, nil)
	}
	if paced, ok := sc.Store.(store.Paced); ok {
		c.pipeline.Pace(paced.Pace())
	}
	if err := c.shared.Learn(ctx); err != nil && sc.MaxOutstanding > 0 && ctx.Err() == nil {
		return c, nil // the first batch begins an outage
	}
	return c, nil
}

// Route says by which ring, and to which of its members, a gateway has sent a batch.
type Route struct {
	// Epoch is equal as long as the ring is: its members, their weights and its slots. A ring that comes back as it was has
	// the same epoch.
	Epoch uint64
	// Member is this worker's name in the ring.
	Member string
	// Since is when the gateway began to use the ring, to the millisecond and by its clock; zero if that is not known. It tells a
	// ring that went and came back from one that stayed: of those in between this worker may get no batch. Where it is not
	// known, such a ring is taken for one that stayed, and streams that others had meanwhile may be put back as they were.
	Since time.Time
	// Previous is the epoch of the ring that the gateway used directly before, and PreviousSince when it began to. If that is not
	// known, PreviousSince is zero: the gateway has used no other since it started.
	Previous      uint64
	PreviousSince time.Time
}

// points returns r as batches have it.
func (r *Route) points() (to points.Route) {
	if r.Epoch == 0 && r.Member == "" {
		return to
	}
	to.ID, to.Epoch = xxh3.HashStringSeed(r.Member, r.Epoch)|1, r.Epoch
	if to.Since = milliseconds(r.Since); to.Since == 0 {
		return to
	}
	if to.PreviousSince = milliseconds(r.PreviousSince); to.PreviousSince != 0 {
		to.Previous = r.Previous
	}
	return to
}

// milliseconds is t in Unix milliseconds, and zero if t is not known.
func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMilli(), 0)
}

type routeKey struct{}

// WithRoute returns a context that tells Convert by which route the batch came. As long as all batches come by one Epoch and
// Member, each stream has one worker, and a shared store that loses its records gets back what that worker knows: of the
// streams that it has counted since it heard of the latest Since, and two seconds after that. Clocks of gateways and workers are
// to be no further apart.
func WithRoute(ctx context.Context, r Route) context.Context {
	return context.WithValue(ctx, routeKey{}, r)
}

// RouteOf returns what WithRoute has told ctx, and a zero Route if nothing.
func RouteOf(ctx context.Context) Route {
	route, _ := ctx.Value(routeKey{}).(Route)
	return route
}
