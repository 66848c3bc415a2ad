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
	// Owner is the name under which the state is kept; all Converters that share it use the same one. Its identity, together
	// with Config.Seed and the encoding of identities, is part of every record. A record of another owner is set aside.
	Owner string
	// MaxOutstanding says what to do while Store fails. With zero, batches are refused: nothing is lost, and nothing given
	// out. Otherwise batches are given out from what this Converter knows, and at most this many delta points are kept until
	// the store is back. Totals then end up exact, but outstanding points are lost if the process ends.
	//
	// Set it only if one Converter sees all points of a stream. A stream that this Converter does not know when the outage
	// begins restarts visibly, and its points from before the outage are kept but not given out. If several Converters see a
	// stream, values under one start may fall during the outage, and deltas that alternated between Converters may be
	// missed: to the Converter that commits first, the deltas of another are gaps, of which a stream remembers four.
	// Stats.Missed counts the deltas that are missed.
	MaxOutstanding int
	// OnDamaged, if not nil, is called for each record that could not be read and was set aside.
	OnDamaged func(id streamid.ID, err error)
	// OnOutage, if not nil, is called with the error that begins an outage, and with nil when everything is stored again. It
	// is called only if MaxOutstanding is set.
	OnOutage func(err error)
}

// OpenShared returns a Converter that shares its state with all others that use the same store. Any Converter can take any
// delta of any stream: totals and starts continue wherever the next delta arrives, and a retry that arrives elsewhere is
// recognised. Convert returns once the store holds everything the result counts as added. See "Shared state" in the package
// comment for what happens if the store loses something.
//
// The Converter's memory is a cache. Config.MaxStale says when streams are dropped from it; the store decides how long it
// keeps a record.
//
// OpenShared asks the store for its life for as long as ctx lasts. It returns a Converter even if there is no answer; each
// batch then asks again. A store without a life gets one that begins now, and deltas that end before that, or within a
// second of it, are too late.
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

// Route says which ring a gateway used to send a batch, and to which member of that ring.
type Route struct {
	// Epoch identifies the ring by its members, their weights and its slots. A ring that changes and later returns to the
	// same state has the same epoch again.
	Epoch uint64
	// Member is this worker's name in the ring.
	Member string
	// Since is when the gateway began to use the ring, to the millisecond and by the gateway's clock; zero if unknown. It
	// tells a ring that was replaced and came back from one that stayed, because this worker may have received no batch by
	// the rings in between. If it is unknown, a ring that came back is treated as one that stayed, and streams that others
	// changed meanwhile may be reset to their earlier state.
	Since time.Time
	// Previous is the epoch of the ring that the gateway used immediately before, and PreviousSince when it began to use
	// that one. PreviousSince is zero if the gateway has used no other ring since it started.
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

// WithRoute returns a context that tells Convert by which route the batch came. As long as all batches have the same Epoch
// and Member, each stream has one worker. A shared store that loses its records then gets back what that worker knows of the
// streams it has counted more than two seconds after the latest Since it has heard of. The clocks of gateways and workers
// must not differ by more than that.
func WithRoute(ctx context.Context, r Route) context.Context {
	return context.WithValue(ctx, routeKey{}, r)
}

// RouteOf returns the route that WithRoute stored in ctx, or a zero Route.
func RouteOf(ctx context.Context) Route {
	route, _ := ctx.Value(routeKey{}).(Route)
	return route
}
