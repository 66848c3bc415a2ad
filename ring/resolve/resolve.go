// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deltaring/deltaring/ring"
)

// Member is a member of a ring, with its address.
type Member struct {
	ring.Member
	// Address is host:port, or whatever the client that connects to members accepts.
	Address string
}

// List is the result of a lookup.
type List struct {
	// Members are all members, in any order.
	Members []Member
	// Problems are defects that do not make the list unusable, such as entries that cannot be members. They are only
	// reported.
	Problems []error
}

// Source finds members.
type Source interface {
	// Find returns all current members. A Resolver treats the errors ErrNone and ErrDenied specially. Find is not called by
	// two goroutines at once.
	Find(ctx context.Context) (List, error)
}

// Watcher is a source that knows when to look again.
type Watcher interface {
	Source
	// Watch calls changed whenever Find may return a different result, until ctx is done. Find may be called meanwhile.
	Watch(ctx context.Context, changed func())
}

var (
	// ErrNone is wrapped if a source answered that there are no members.
	ErrNone = errors.New("the answer has no members")
	// ErrDenied is wrapped if access to a source is denied.
	ErrDenied = errors.New("not allowed")
)

// Resolver follows a source. It may be copied before Follow is called.
type Resolver struct {
	Source Source
	// Interval is the time between lookups. It may be zero only if Source is a Watcher: then the Watcher alone triggers
	// lookups.
	Interval time.Duration
	// Debounce is how long a list must stay the same before it is applied; the first list is applied at once. If lists keep
	// changing, the latest is applied after ten times as long. Zero applies every list.
	Debounce time.Duration
	// MaxMembers is the maximum number of members to accept.
	MaxMembers int
}

// Outcome is the outcome of a lookup.
type Outcome uint8

const (
	Found   Outcome = iota // members, and whoever applies lists has no objection
	Empty                  // an answer, but no members
	Failed                 // no answer, or one that cannot be used
	Denied                 // the source may not be asked
	Refused                // members, but whoever applies lists could not
)

func (o Outcome) String() string {
	return [...]string{"found", "empty", "failed", "denied", "refused"}[o]
}

// Report describes a lookup.
type Report struct {
	Outcome  Outcome
	Err      error     // nil if Found
	Since    time.Time // of the first of the errors that came one after the other; zero if Found
	Problems []error   // as in List
	// Unknown says that no list has been applied yet, so there is no last good one to keep.
	Unknown bool
}

const (
	// firstRetry is how soon a lookup is repeated while no members are known. It doubles up to the interval.
	firstRetry = 100 * time.Millisecond
	// againAfter is how soon a list that could not be applied is offered again if the interval does not say.
	againAfter = 5 * time.Second
	// calm is the least time between lookups that a Watcher asks for, so that a storm of changes is no storm of lookups.
	calm = 100 * time.Millisecond
	// maxReasons is the most problems that an error names as the reason why there are no members.
	maxReasons = 5
)

// Follow looks up members until ctx is done, and calls apply with each list that has lasted and differs from the previous
// one. A list that apply refuses is offered again. Follow calls report after each lookup. It does not call either function
// from two goroutines at once, nor after it has returned.
func (r *Resolver) Follow(ctx context.Context, apply func([]Member) error, report func(Report)) {
	changed := make(chan struct{}, 1)
	if w, ok := r.Source.(Watcher); ok {
		var watching sync.WaitGroup
		defer watching.Wait()
		watching.Go(func() {
			w.Watch(ctx, func() {
				select {
				case changed <- struct{}{}:
				default: // one is enough
				}
			})
		})
	}
	var (
		d       = debouncer{wait: r.Debounce}
		timer   = time.NewTimer(0)
		due     = time.Now() // when timer fires; zero if it does not
		last    time.Time    // lookup
		since   time.Time
		unknown = true
		retry   = firstRetry
	)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if soon := last.Add(calm); due.IsZero() || soon.Before(due) {
				due = soon
				timer.Reset(time.Until(due))
			}
			continue
		case <-timer.C:
		}
		last = time.Now()
		list, err := r.find(ctx)
		if ctx.Err() != nil {
			return
		}
		next, outcome := r.Interval, outcomeOf(err)
		if err == nil {
			act, again := d.offer(time.Now(), list.Members)
			switch {
			case act:
				if err = apply(list.Members); err == nil {
					d.acted(list.Members)
					unknown = false
				} else {
					outcome, next = Refused, cmp.Or(next, againAfter)
				}
			case again > 0 && (next == 0 || again < next):
				next = again
			}
		} else if unknown && next > 0 {
			next = min(next, retry)
			retry *= 2
		}
		switch {
		case err == nil:
			since = time.Time{}
		case since.IsZero():
			since = last
		}
		report(Report{Outcome: outcome, Err: err, Since: since, Problems: list.Problems, Unknown: unknown})
		due = time.Time{}
		if next > 0 {
			due = time.Now().Add(next)
			timer.Reset(next)
		}
	}
}

// find returns members in the order of their names, at least one.
func (r *Resolver) find(ctx context.Context) (List, error) {
	list, err := r.Source.Find(ctx)
	if err != nil {
		return list, err
	}
	members := slices.DeleteFunc(list.Members, func(m Member) bool {
		if m.Name != "" && m.Address != "" {
			return false
		}
		list.Problems = append(list.Problems, fmt.Errorf("member %q at %q: lacks its name or its address, and is left out", m.Name, m.Address))
		return true
	})
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Address, b.Address))
	})
	list.Members = slices.CompactFunc(members, func(a, b Member) bool { return a.Name == b.Name })
	switch n := len(list.Members); {
	case n == 0:
		err := ErrNone
		for _, p := range list.Problems[:min(len(list.Problems), maxReasons)] {
			err = fmt.Errorf("%w; %w", err, p)
		}
		return list, err
	case n > r.MaxMembers:
		return list, fmt.Errorf("the answer has %d members, more than max_members, %d", n, r.MaxMembers)
	}
	return list, nil
}

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Found
	case errors.Is(err, ErrNone):
		return Empty
	case errors.Is(err, ErrDenied):
		return Denied
	}
	return Failed
}

// Static is a source that never changes.
type Static []Member

// Find returns the members.
func (s Static) Find(context.Context) (List, error) { return List{Members: slices.Clone(s)}, nil }
