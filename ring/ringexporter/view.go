// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"sync/atomic"

	"github.com/deltaring/deltaring/ring"
)

// view is a ring and its members, running. It does not change; the exporter replaces it.
type view[B batch] struct {
	ring    *ring.Ring
	term    term
	members []*member[B] // as ring.Members

	// users counts batches that are being handed to members, and one more until the view is replaced. At zero nobody
	// uses the view any more, nor ever will: settled is closed.
	users   atomic.Int64
	drained chan struct{}
	// settled is closed when all views before this one are drained.
	settled chan struct{}

	// For the handover, see handOver: what was routed by the view, past is closed when that is over of all views before, and what
	// each member waits for before it is sent anything that the view has routed, nil for nothing.
	routed *routed
	past   chan struct{}
	holds  []<-chan struct{}
}

func newView[B batch](r *ring.Ring) *view[B] {
	v := &view[B]{
		ring:    r,
		members: make([]*member[B], len(r.Members())),
		drained: make(chan struct{}),
		settled: make(chan struct{}),
		routed:  newRouted(),
		past:    make(chan struct{}),
		holds:   make([]<-chan struct{}, len(r.Members())),
	}
	v.users.Store(1)
	return v
}

// acquire keeps the members of the view from being shut down until release. It returns false if it is too late, as the
// view has been replaced.
func (v *view[B]) acquire() bool {
	for {
		n := v.users.Load()
		if n == 0 {
			return false
		}
		if v.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (v *view[B]) release() {
	if v.users.Add(-1) == 0 {
		close(v.drained)
		v.routed.end()
	}
}

// byName returns the member of that name, or nil. A nil view has none.
func (v *view[B]) byName(name string) *member[B] {
	if v == nil {
		return nil
	}
	for _, m := range v.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}
