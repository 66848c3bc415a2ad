// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"
)

// layout says which lane has what. With queues on disk it outlives the process: data must find its lane again, and where another
// number of lanes is configured, what the old ones have must be sent before anything newer.
type layout struct {
	Generation int      `json:"generation"` // tells layouts apart; 0 if none is on disk
	Lanes      int      `json:"lanes"`
	Key        string   `json:"key"`
	Tenants    []string `json:"tenants,omitempty"`
	Seed       uint64   `json:"seed,string"` // secret: who knew it could fill one lane
}

// prefix is what the names of a layout's queues begin with.
func (l layout) prefix() string {
	if l.Generation == 0 {
		return ""
	}
	return fmt.Sprintf("%d.", l.Generation)
}

// marks is what the marks in its queues begin with. It comes from the seed, so that no data looks like one.
func (l layout) marks() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "mark %d", l.Seed))
	return hex.EncodeToString(sum[:16]) + " "
}

// routesLike returns whether both have the same data in lanes of the same numbers, once they have one seed.
func (l layout) routesLike(other layout) bool {
	return l.Lanes == other.Lanes && l.Key == other.Key && slices.Equal(l.Tenants, other.Tenants)
}

func (c *lanesConnector[B]) onDisk() bool { return c.shared.onDisk }

// lay starts the roads: one, and before it those that earlier runs with other settings may have left data in.
func (c *lanesConnector[B]) lay(ctx context.Context, host component.Host) ([]*road[B], error) {
	wanted := layout{Lanes: c.cfg.Lanes, Key: c.key.String(), Tenants: slices.Sorted(slices.Values(c.tenants)), Seed: rand.Uint64()}
	open := make(chan struct{})
	close(open)
	if !c.onDisk() {
		r, err := c.newRoad(ctx, host, wanted, open, false)
		return []*road[B]{r}, err
	}
	layouts, err := c.readLayouts(ctx, host)
	if err != nil {
		return nil, err
	}
	if n := len(layouts); n == 0 || !layouts[n-1].routesLike(wanted) {
		wanted.Generation = 1
		if n > 0 {
			wanted.Generation = layouts[n-1].Generation + 1
		}
		layouts = append(layouts, wanted)
		if err := c.writeLayouts(ctx, layouts); err != nil { // before any data
			return nil, err
		}
	}
	var roads []*road[B]
	last := len(layouts) - 1
	for i, of := range layouts {
		r, err := c.newRoad(ctx, host, of, open, i < last)
		roads = append(roads, r)
		if err != nil || i == last {
			return roads, err
		}
		c.set.Logger.Info("sending what an earlier run with other lanes has left, and nothing newer before that is done",
			zap.Int("lanes", of.Lanes), zap.String("routing_key", of.Key))
		done, before := make(chan struct{}), open
		open = done
		c.draining.Go(func() {
			select {
			case <-before:
			case <-c.shared.closing.Done():
				return
			}
			if !c.drain(r) {
				return
			}
			if i == last-1 {
				c.drained(layouts[last:])
			}
			close(done)
		})
	}
	return roads, nil
}

// enqueue puts data into a queue of a road. A queue on disk also counts what it could not write as being there, and looks for it no
// sooner than it could write something: after some attempts it would be full for ever. So, after one that failed, the disk must be
// seen to work first, and then something goes that is small.
func (c *lanesConnector[B]) enqueue(ctx context.Context, r *road[B], i int, data B) error {
	if r.failed[i].Load() {
		if err := c.disk.Set(ctx, probeKey, []byte{1}); err != nil {
			return fmt.Errorf("sending_queue::storage: %w", err)
		}
		if err := r.queues[i].consume(ctx, c.signal.empty()); err != nil {
			return err
		}
		r.failed[i].Store(false)
	}
	err := r.queues[i].consume(ctx, data)
	if err != nil && c.onDisk() && ctx.Err() == nil && !errors.Is(err, exporterhelper.ErrQueueIsFull) {
		r.failed[i].Store(true)
	}
	return err
}

// probeKey is where it is tried whether the disk works.
const probeKey = "probe"

// drain returns when all that was in the queues of a road has been sent, or false if the connector stops before.
func (c *lanesConnector[B]) drain(r *road[B]) bool {
	for i := range r.queues {
		if !c.putMark(r, i) {
			return false
		}
	}
	again := time.NewTicker(markAgain)
	defer again.Stop()
	for i, out := range r.marks {
		for waits := true; waits; {
			select {
			case <-out:
				waits = false
			case <-again.C:
				// A queue drops what it cannot read. If the lane has nothing to do, that was the mark.
				if r.lanes[i].idle() && !c.putMark(r, i) {
					return false
				}
			case <-c.shared.closing.Done():
				return false
			}
		}
	}
	if err := r.shutdown(context.Background()); err != nil {
		c.set.Logger.Error("shutting down lanes of an earlier run", zap.Error(err))
	}
	return true
}

// markAgain is how often drain looks whether a mark was lost.
const markAgain = 10 * time.Second

// putMark puts the mark at the end of a queue, or returns false if the connector stops before there is room for it.
func (c *lanesConnector[B]) putMark(r *road[B], i int) bool {
	for c.enqueue(c.shared.closing, r, i, c.signal.mark(r.mark)) != nil {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.shared.closing.Done():
			return false
		}
	}
	return true
}

// drained notes that no data is left but by these layouts.
func (c *lanesConnector[B]) drained(layouts []layout) {
	if err := c.writeLayouts(context.Background(), layouts); err != nil {
		// The next start looks for data once more, and finds none.
		c.set.Logger.Warn("cannot note that nothing is left of an earlier run", zap.Error(err))
		return
	}
	c.set.Logger.Info("what an earlier run has left is sent")
}

// layoutsKey is where the layouts are by which there may be data on disk, oldest first.
const layoutsKey = "layouts"

func (c *lanesConnector[B]) readLayouts(ctx context.Context, host component.Host) ([]layout, error) {
	id := *c.cfg.QueueConfig.Get().StorageID
	ext, ok := host.GetExtensions()[id].(storage.Extension)
	if !ok {
		return nil, fmt.Errorf("sending_queue::storage: no storage extension %q: name one under extensions, and in service::extensions", id)
	}
	var err error
	if c.disk, err = ext.GetClient(ctx, component.KindConnector, c.set.ID, c.signal.id.String()); err != nil {
		return nil, fmt.Errorf("sending_queue::storage: %q: %w", id, err)
	}
	raw, err := c.disk.Get(ctx, layoutsKey)
	if err != nil {
		return nil, fmt.Errorf("sending_queue::storage: %q: reading %q: %w", id, layoutsKey, err)
	}
	layouts, err := parseLayouts(raw)
	if err != nil {
		return nil, fmt.Errorf("sending_queue::storage: %q: %q of connector %q, which says where data is, cannot be read: %w; "+
			"to start without that data, give the connector another name", id, layoutsKey, c.set.ID, err)
	}
	return layouts, nil
}

func parseLayouts(raw []byte) (layouts []layout, err error) {
	if raw == nil {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &layouts); err != nil {
		return nil, err
	}
	for i, l := range layouts {
		if l.Lanes < 1 || l.Lanes > maxLanes || l.Generation < 1 || i > 0 && l.Generation <= layouts[i-1].Generation {
			return nil, fmt.Errorf("no such layout can be: %.100q", raw)
		}
	}
	return layouts, nil
}

func (c *lanesConnector[B]) writeLayouts(ctx context.Context, layouts []layout) error {
	raw, err := json.Marshal(layouts)
	if err != nil {
		return err
	}
	if err := c.disk.Set(ctx, layoutsKey, raw); err != nil {
		return fmt.Errorf("sending_queue::storage: writing %q: %w", layoutsKey, err)
	}
	return nil
}
