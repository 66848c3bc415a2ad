// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
)

// changing is a source of members of which one is another one every time it is asked.
type changing struct {
	mu      sync.Mutex
	members int
	finds   int
	asked   chan struct{}
	frozen  bool
}

func (c *changing) Find(context.Context) (resolve.List, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen {
		c.finds++
	}
	var list resolve.List
	for i := range c.members {
		generation := (c.finds + c.members - 1 - i) / c.members
		m := resolve.Member{Member: ring.Member{Name: fmt.Sprintf("m%d-%d", i, generation), Weight: 1}}
		m.Address = fmt.Sprintf("127.0.0.1:%d", 1+i) // nothing is sent there
		list.Members = append(list.Members, m)
	}
	select {
	case c.asked <- struct{}{}:
	default:
	}
	return list, nil
}

func (c *changing) freeze() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
	return c.finds
}

// TestStormOfMembers has 1000 members and ten changes a second, for RING_STORM: with the default debounce, which lets one through
// now and then, and with one that lets through all that there is time for. Memory and goroutines are as before.
func TestStormOfMembers(t *testing.T) {
	members, storm := 1000, 15*time.Second
	if testing.Short() {
		members, storm = 100, 5*time.Second
	}
	if s := os.Getenv("RING_STORM"); s != "" {
		var err error
		storm, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	for name, debounce := range map[string]time.Duration{"default": 5 * time.Second, "none": 0} {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, dnsConfig(t, startNameServer(t))) // that finds nobody
			ctx, cancel := context.WithCancel(t.Context())
			source := &changing{members: members, asked: make(chan struct{}, 1)}
			done := make(chan struct{})
			go func() {
				defer close(done)
				g.ring.follow(ctx, resolve.Resolver{Source: source, Interval: 100 * time.Millisecond, Debounce: debounce, MaxMembers: 1000})
			}()
			t.Cleanup(func() {
				cancel()
				<-done
			})
			require.Eventually(t, func() bool { return len(g.members()) == members }, patience, time.Millisecond)
			usage := func() (uint64, int) {
				g.logs.TakeAll() // has all that was ever logged
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return m.HeapAlloc, runtime.NumGoroutine()
			}
			settle := time.After(storm / 4) // the first changes may allocate what stays
			end := time.After(storm)
			var before uint64
			var goroutines int
			for running := true; running; {
				select {
				case <-settle:
					before, goroutines = usage()
				case <-source.asked:
				case <-end:
					running = false
				}
			}
			finds := source.freeze()
			after, now := usage()
			rings := int(sum(t, g, "otelcol_ring_changes", "outcome", "applied"))
			t.Logf("%d members, %d lookups, %d rings: heap %d KiB before, %d KiB after, goroutines %d before, %d after",
				members, finds, rings, before>>10, after>>10, goroutines, now)
			assert.LessOrEqual(t, finds, int(storm/(100*time.Millisecond))+2)
			assert.Less(t, after, before+before/4+8<<20)
			assert.InDelta(t, goroutines, now, 0.1*float64(goroutines)+20)
			if debounce > 0 {
				assert.LessOrEqual(t, rings, 2+int(storm/(10*debounce)))
			}
			// The last change of the storm is routed by soon after.
			list, err := source.Find(t.Context())
			require.NoError(t, err)
			var want []string
			for _, m := range list.Members {
				want = append(want, m.Name)
			}
			slices.Sort(want)
			began := time.Now()
			require.Eventually(t, func() bool { return slices.Equal(slices.Sorted(slices.Values(g.members())), want) }, patience, time.Millisecond)
			t.Logf("routed by the last change after %v", time.Since(began))
			// A second without the race detector, with which a ring of 1000 members and the members themselves take longer.
			assert.LessOrEqual(t, time.Since(began), debounce+10*time.Second)
		})
	}
}
