// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// Options configure a Store. The zero value of each field selects its default.
type Options struct {
	// Groups is the number of groups of streams, each with its own log: a power of two, 1 to 256. It must be the same for
	// all who share the logs, and must never change. A worker owns whole groups, so choose several per worker; choose fewer
	// if the Driver's cost grows with the number of logs in a call. Default 64.
	Groups int
	// TTL is the minimum time that a record is kept after it was last written, by the clock of its writer. It stays until
	// the next snapshot of its log. All who share logs use the same value. Zero keeps records for ever.
	TTL time.Duration
	// Idle is the time without swaps after which the records of a log are dropped from memory, because another worker may
	// own it by then. They are read again when needed. Default 10 minutes.
	Idle time.Duration
	// Timeout bounds each call of the Driver; Compact gets six times as long. Default 10 seconds.
	Timeout time.Duration
	// Readers is the number of logs read concurrently. Default 8.
	Readers int
	// CommitInterval is the time between the starts of two commits that the Store asks for (see store.Paced). Set it if
	// appends are charged individually. Batches wait for it. Zero asks for no delay.
	CommitInterval time.Duration
	// CommitPoints bounds the points of a commit if CommitInterval is set. Default 1 << 17.
	CommitPoints int
	// Observer, if not nil, is informed of each call.
	Observer Observer

	// prevent unkeyed literal initialization
	_ struct{}
}

// Observer receives what a Store does. It must not keep its arguments, and is called by several goroutines at once.
type Observer interface {
	// Swapped is called after each Swap with the time it took, the number of retries of parts of it because another owner
	// had appended to a log, and the error. If there is an error, there are no results.
	Swapped(ctx context.Context, swaps []store.Swap, results []store.Result, took time.Duration, conflicts int, err error)
	// SetAside is called after each SetAside; moved reports whether there was such a record.
	SetAside(ctx context.Context, moved bool, err error)
	// Called is called after each call of the Driver.
	Called(ctx context.Context, call Call)
}

// Call describes a call of a Driver.
type Call struct {
	Method Method
	// Logs is the number of logs in the call, Refused the number of appends and checks that were refused.
	Logs, Refused int
	// Bytes is the number of bytes of entries and snapshots sent or read.
	Bytes int
	// Whole reports that a Read returned the log from its beginning, or its snapshot.
	Whole bool
	Took  time.Duration
	Err   error
}

// Method is a method of a Driver.
type Method uint8

// The methods of a Driver.
const (
	MethodRead Method = iota
	MethodAppend
	MethodCompact
)

// String returns the method's name in lower case.
func (m Method) String() string { return [...]string{"read", "append", "compact"}[m] }

const (
	defaultGroups       = 64
	defaultIdle         = 10 * time.Minute
	defaultTimeout      = 10 * time.Second
	defaultReaders      = 8
	defaultCommitPoints = 1 << 17

	// maxTries bounds how often a part of a call is tried again because others append.
	maxTries = 16
	// maxEntry bounds entries; only a single unit may be larger. The rest goes into the next entry.
	maxEntry = 4 << 20
	// livesPatience is how long after it was proposed a life may still be sent: its floor is the time of the proposal.
	livesPatience = 500 * time.Millisecond

	// keptSwaps and keptBytes bound the working memory that is kept for the next call.
	keptSwaps = 1 << 18
	keptBytes = 32 << 20
)

// ErrClosed is returned by calls after Close.
var ErrClosed = errors.New("log: the store is closed")

var (
	errContended  = errors.New("log: others keep appending to the logs of these streams; each log should have one owner")
	errEmptied    = errors.New("what was there is lost")
	errNoSnapshot = errors.New("they are not there, and no snapshot is in their place")
	errGroups     = errors.New("the logs have another number of groups")
	errFull       = fmt.Errorf("the log has %d streams, which is the most: use more groups", maxRecords)
)

// Store is a store.Shared that keeps its records in logs.
type Store struct {
	driver   Driver
	opts     Options
	now      func() time.Time
	replicas []*replica
	maker    maker

	// mu is held for the whole of each call.
	mu     sync.Mutex
	closed atomic.Bool

	// Working memory.
	counts  [257]int32
	order   []int32  // swaps by log, each log's in their order
	handles []uint32 // in the same order, of what the log has of their streams
	works   []work
	stale   []*replica
	appends []Append
	sent    []int32 // works, by append
	buffer  []byte  // entries
	results []store.Result
	records []byte // for results
}

var _ store.Paced = (*Store)(nil)

// work is the part of a call that concerns one log.
type work struct {
	log      *replica
	from, to int32 // a range of order; everything before from is done
	judged   int32 // where the swaps of the entry end
	// entry and entryEnd delimit the entry in buffer; they are equal if there is none.
	entry, entryEnd int
	id              uint64
}

// New returns a Store that keeps its logs with driver. It does not call the driver yet. The caller must close the Store.
func New(driver Driver, opts Options) (*Store, error) { return open(driver, opts, time.Now) }

func open(driver Driver, opts Options, now func() time.Time) (*Store, error) {
	if opts.Groups == 0 {
		opts.Groups = defaultGroups
	}
	if opts.Idle == 0 {
		opts.Idle = defaultIdle
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Readers == 0 {
		opts.Readers = defaultReaders
	}
	if opts.CommitPoints == 0 {
		opts.CommitPoints = defaultCommitPoints
	}
	switch n := opts.Groups; {
	case driver == nil:
		return nil, errors.New("log: driver: must not be nil")
	case n < 1 || n > 256 || n&(n-1) != 0:
		return nil, fmt.Errorf("log: groups: must be a power of two from 1 to 256, got %d", n)
	case opts.TTL < 0 || opts.TTL > 0 && opts.TTL < time.Second:
		return nil, fmt.Errorf("log: TTL: must be a second at least, got %v", opts.TTL)
	case opts.Idle < 0:
		return nil, fmt.Errorf("log: idle: must be positive, got %v", opts.Idle)
	case opts.Timeout < 0:
		return nil, fmt.Errorf("log: timeout: must be positive, got %v", opts.Timeout)
	case opts.Readers < 0:
		return nil, fmt.Errorf("log: readers: must be positive, got %d", opts.Readers)
	case opts.CommitInterval < 0:
		return nil, fmt.Errorf("log: commit interval: must not be negative, got %v", opts.CommitInterval)
	case opts.CommitPoints < 0:
		return nil, fmt.Errorf("log: commit points: must be positive, got %d", opts.CommitPoints)
	}
	s := &Store{driver: driver, opts: opts, now: now}
	for n := range opts.Groups {
		s.replicas = append(s.replicas, &replica{number: n, groups: opts.Groups})
	}
	s.maker.begin(s)
	return s, nil
}

// Pace implements store.Paced.
func (s *Store) Pace() (interval time.Duration, points int) {
	if s.opts.CommitInterval == 0 {
		return 0, 0
	}
	return s.opts.CommitInterval, s.opts.CommitPoints
}

// Stats describes a Store at one moment.
type Stats struct {
	// Logs is the number of logs in memory, Streams the number of streams with a record in them, and Bytes the memory they
	// take.
	Logs, Streams, Bytes int
}

// Stats returns the current figures. It does not wait for calls in progress, and may be called concurrently with them.
func (s *Store) Stats() (st Stats) {
	for _, l := range s.replicas {
		if memory := l.memory.Load(); memory > 0 {
			st.Logs++
			st.Streams += int(l.streams.Load())
			st.Bytes += int(memory)
		}
	}
	return st
}

// Close stops background work and returns when it has stopped, or with ctx's error. It does not close the driver.
func (s *Store) Close(ctx context.Context) error {
	s.closed.Store(true)
	s.maker.stop()
	ended := make(chan struct{})
	go func() {
		s.maker.wait()
		s.mu.Lock() // waits for a call that is under way
		defer s.mu.Unlock()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("log: waiting for the driver: %w", ctx.Err())
	}
}

// Lives implements store.Shared.
func (s *Store) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	if proposed.ID == 0 {
		return nil, errors.New("log: the life proposed has no ID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	defer s.release()
	s.works = s.works[:0]
	for _, l := range s.replicas {
		s.take(l, 0, 0)
	}
	began := time.Now()
	for {
		lives, err := s.lives(ctx, proposed)
		switch {
		case err == nil:
			return lives, nil
		case errors.Is(err, errEmptied) && time.Since(began) < livesPatience:
			// Logs that seemed to have a life are now known to have none: propose again.
		default:
			return nil, fmt.Errorf("log: lives: %w", err)
		}
	}
}

func (s *Store) lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	s.appends, s.sent, s.buffer = s.appends[:0], s.sent[:0], s.buffer[:0]
	for i := range s.works {
		w := &s.works[i]
		w.entry, w.entryEnd = 0, 0
		if w.log.life.ID == 0 {
			// If the log is empty, this life becomes its first entry.
			w.id, w.entry = rand.Uint64()|1, len(s.buffer)
			s.buffer = appendHeader(s.buffer, flavourEntry, s.seconds(), 1)
			s.buffer = appendLife(s.buffer, proposed, s.opts.Groups)
			s.buffer = appendChecksum(s.buffer, w.entry, w.id)
			w.entryEnd = len(s.buffer)
		}
		s.enqueue(i)
	}
	done, err := s.append(ctx)
	if err != nil {
		return nil, err
	}
	s.stale = s.stale[:0]
	for i, ok := range done {
		w := &s.works[s.sent[i]]
		l := w.log
		switch {
		case !ok:
			s.stale = append(s.stale, l)
		case l.life.ID == 0:
			l.clear()
			l.end, l.life, l.tail = Position{1, w.id}, proposed, w.entryEnd-w.entry
		}
	}
	if err := s.each(ctx, s.stale, s.look); err != nil {
		return nil, err
	}
	lives := make([]store.Life, len(s.replicas))
	for i, l := range s.replicas {
		if lives[i] = l.life; l.life.ID == 0 {
			return nil, fmt.Errorf("log %d: %w", l.number, errEmptied)
		}
	}
	return lives, nil
}

// take begins to work on a log.
func (s *Store) take(l *replica, from, to int32) {
	l.mu.Lock()
	l.touched = s.now()
	s.works = append(s.works, work{log: l, from: from, to: to})
}

// release ends the work of a call.
func (s *Store) release() {
	for i := range s.works {
		s.works[i].log.mu.Unlock()
	}
	clear(s.appends)
	if cap(s.buffer) > keptBytes {
		s.buffer = nil
	}
	if cap(s.order) > keptSwaps {
		s.order, s.handles, s.results = nil, nil, nil // results are the caller's until the next call
	}
}

// seconds is the time as entries have it.
func (s *Store) seconds() uint32 { return uint32(max(s.now().Unix(), 0)) }

// enqueue adds an append of the work's entry, or a check if it has none.
func (s *Store) enqueue(i int) {
	w := &s.works[i]
	if w.entry == w.entryEnd {
		w.id = 0
	}
	s.appends = append(s.appends, Append{Log: w.log.number, After: w.log.end, ID: w.id})
	s.sent = append(s.sent, int32(i))
}

// append calls the driver with the enqueued appends.
func (s *Store) append(ctx context.Context) ([]bool, error) {
	size := 0
	for i := range s.appends {
		if w := &s.works[s.sent[i]]; w.entryEnd > w.entry {
			s.appends[i].Entry = s.buffer[w.entry:w.entryEnd:w.entryEnd] // the buffer does not move any more
			size += w.entryEnd - w.entry
		}
		// From here on, whatever happens, the append may have been performed.
		s.works[s.sent[i]].log.uncertain = true
	}
	call := Call{Method: MethodAppend, Logs: len(s.appends), Bytes: size}
	started := time.Now()
	timed, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	done, err := s.driver.Append(timed, s.appends)
	if err == nil && len(done) != len(s.appends) {
		err = fmt.Errorf("the driver returned %d results for %d appends", len(done), len(s.appends))
	}
	if err == nil {
		for i, ok := range done {
			if ok {
				s.works[s.sent[i]].log.uncertain = false
			} else {
				call.Refused++
			}
		}
	}
	call.Took, call.Err = time.Since(started), err
	s.observe(ctx, call)
	return done, err
}

func (s *Store) observe(ctx context.Context, call Call) {
	if s.opts.Observer != nil {
		s.opts.Observer.Called(ctx, call)
	}
}

// each calls f for all logs, several at a time.
func (s *Store) each(ctx context.Context, logs []*replica, f func(context.Context, *replica) error) (err error) {
	n := min(s.opts.Readers, len(logs))
	if n <= 1 {
		for i := 0; i < len(logs) && err == nil; i++ {
			err = f(ctx, logs[i])
		}
		return err
	}
	errs := make(chan error, len(logs))
	next := make(chan *replica, len(logs))
	for _, l := range logs {
		next <- l
	}
	close(next)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for l := range next {
				if err := f(ctx, l); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// read calls the driver.
func (s *Store) read(ctx context.Context, log int, after Position) (Tail, error) {
	started := time.Now()
	timed, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	tail, err := s.driver.Read(timed, log, after)
	call := Call{Method: MethodRead, Logs: 1, Bytes: len(tail.Snapshot), Whole: tail.From != after || after == Position{}, Took: time.Since(started), Err: err}
	for i := range tail.Entries {
		call.Bytes += len(tail.Entries[i].Data)
	}
	s.observe(ctx, call)
	return tail, err
}

// readOn brings the records of a log up to date.
func (s *Store) readOn(ctx context.Context, l *replica) error {
	after := l.end
	if l.records == nil {
		after = Position{}
	}
	tail, err := s.read(ctx, l.number, after)
	if err != nil {
		return err
	}
	return l.follow(&tail)
}

// look finds out the life of a log and where it ends. If the records are in memory it brings them up to date; otherwise it does not keep
// what it reads.
func (s *Store) look(ctx context.Context, l *replica) error {
	if l.records != nil {
		return s.readOn(ctx, l)
	}
	tail, err := s.read(ctx, l.number, l.end)
	if err != nil {
		return err
	}
	if tail.From != l.end || l.life.ID == 0 {
		// The life is the first item of a snapshot, or of the first entry.
		l.life = store.Life{}
		b, flavour, at := tail.Snapshot, byte(flavourState), tail.From
		switch {
		case b != nil:
		case at != Position{}:
			return fmt.Errorf("log %d, entries up to %d: %w", l.number, at.Number, errNoSnapshot)
		case len(tail.Entries) > 0:
			b, flavour, at = tail.Entries[0].Data, flavourEntry, Position{tail.From.Number + 1, tail.Entries[0].ID}
		}
		if b != nil {
			r, err := read(b, flavour, at)
			if err == nil && (!r.next() || r.what != itemLife) {
				err = fmt.Errorf("%w: it does not begin with a life", ErrDamaged)
			}
			if err == nil {
				err = l.begin(&r)
			}
			if err != nil {
				return fmt.Errorf("log %d, entry %d: %w", l.number, at.Number, err)
			}
		}
	}
	l.end, l.uncertain = tail.End(), false
	return nil
}

// Swap implements store.Shared. It appends one entry to the log of each group touched, all in one call of the driver. If
// another owner has appended in between, it reads the new entries and tries again.
func (s *Store) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	if len(swaps) == 0 {
		return nil, nil
	}
	started := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	results, conflicts, err := s.swap(ctx, swaps)
	if err != nil {
		results, err = nil, fmt.Errorf("log: swap: %w", err)
	}
	if s.opts.Observer != nil {
		s.opts.Observer.Swapped(ctx, swaps, results, time.Since(started), conflicts, err)
	}
	return results, err
}

func (s *Store) swap(ctx context.Context, swaps []store.Swap) (results []store.Result, conflicts int, err error) {
	for i := range swaps {
		if swap := &swaps[i]; swap.Record != nil && (len(swap.Record) == 0 || len(swap.Record) > maxRecordBytes || swap.Tag == 0) {
			return nil, 0, fmt.Errorf("stream %v: a record of %d bytes with tag %#x", swap.ID, len(swap.Record), swap.Tag)
		}
	}
	clear(s.results) // so that they keep no records
	if cap(s.results) < len(swaps) {
		s.results = make([]store.Result, len(swaps))
	}
	s.results = s.results[:len(swaps)]
	clear(s.results)
	results = s.results
	s.works = s.works[:0]
	defer s.release()
	s.divide(swaps)
	conflicts, err = s.work(ctx, func(w *work) error { return s.judge(w, swaps) }, func(w *work) { s.perform(w, swaps) })
	return results, conflicts, err
}

// divide sorts the swaps by log.
func (s *Store) divide(swaps []store.Swap) {
	groups := s.opts.Groups
	if cap(s.order) < len(swaps) {
		s.order, s.handles = make([]int32, len(swaps)), make([]uint32, len(swaps))
	}
	s.order, s.handles = s.order[:len(swaps)], s.handles[:len(swaps)]
	clear(s.counts[:groups+1])
	for i := range swaps {
		s.counts[store.Group(swaps[i].ID, groups)+1]++
	}
	for g := range groups {
		s.counts[g+1] += s.counts[g]
		if from, to := s.counts[g], s.counts[g+1]; from < to {
			s.take(s.replicas[g], from, to)
		}
	}
	for i := range swaps {
		g := store.Group(swaps[i].ID, groups)
		s.order[s.counts[g]] = int32(i)
		s.counts[g]++
	}
}

// work judges the swaps of each log, appends the entries, and performs them, until all is done:
//
//	read on where a log is not in memory, or uncertain
//	judge: compare with the records, and make an entry
//	append all entries
//	where one is refused, another owner was faster: read on, and judge again
//
// Where there is nothing to append, a check tells whether the records were up to date.
func (s *Store) work(ctx context.Context, judge func(*work) error, perform func(*work)) (conflicts int, err error) {
	for tries := 0; ; {
		s.stale = s.stale[:0]
		for i := range s.works {
			if w := &s.works[i]; w.from < w.to && (w.log.records == nil || w.log.uncertain) {
				s.stale = append(s.stale, w.log)
				w.log.sent, w.log.landed = w.id, false
			}
		}
		if len(s.stale) > 0 {
			if err := s.each(ctx, s.stale, s.readOn); err != nil {
				return conflicts, err
			}
		}
		s.appends, s.sent, s.buffer = s.appends[:0], s.sent[:0], s.buffer[:0]
		for i := range s.works {
			w := &s.works[i]
			if w.id != 0 && w.log.landed {
				// It was appended: the driver sent it twice and knows only the second answer.
				w.from, w.id, w.log.landed = w.judged, 0, false
			}
			if w.from == w.to {
				continue
			}
			if err := judge(w); err != nil {
				return conflicts, err
			}
			s.enqueue(i)
		}
		if len(s.appends) == 0 {
			return conflicts, nil
		}
		done, err := s.append(ctx)
		if err != nil {
			return conflicts, err
		}
		refused := false
		for i, ok := range done {
			w := &s.works[s.sent[i]]
			if !ok {
				w.log.uncertain, refused = true, true
				conflicts++
				continue
			}
			if w.entryEnd > w.entry {
				perform(w)
				l := w.log
				l.end = Position{l.end.Number + 1, w.id}
				l.tail += w.entryEnd - w.entry
				l.count()
				s.maker.consider(l)
			}
			w.from, w.id = w.judged, 0
		}
		if refused {
			if tries++; tries == maxTries {
				return conflicts, errContended
			}
		}
	}
}

// judge decides the swaps of a log, as many as fit into one entry, as if nobody else had appended meanwhile, and makes that entry.
func (s *Store) judge(w *work, swaps []store.Swap) error {
	l := w.log
	w.id, w.entry = rand.Uint64()|1, len(s.buffer)
	s.buffer = appendHeader(s.buffer, flavourEntry, s.seconds(), l.end.Number+1)
	empty := len(s.buffer)
	l.records.seek(s.handles[w.from:w.to], swaps, s.order[w.from:w.to])
	for w.judged = w.from; w.judged < w.to && len(s.buffer)-w.entry < maxEntry; {
		end := w.judged + 1
		if unit := swaps[s.order[w.judged]].Unit; unit != 0 {
			for end < w.to && swaps[s.order[end]].Unit == unit {
				end++
			}
		}
		s.unit(l, swaps, w.judged, end)
		w.judged = end
	}
	if len(s.buffer) == empty {
		s.buffer = s.buffer[:w.entry]
	} else {
		if l.records.n+int(w.judged-w.from) > maxRecords {
			return fmt.Errorf("log %d: %w", l.number, errFull)
		}
		s.buffer = appendChecksum(s.buffer, w.entry, w.id)
	}
	w.entryEnd = len(s.buffer)
	return nil
}

// unit judges the swaps in a range of order, which are done all or none.
func (s *Store) unit(l *replica, swaps []store.Swap, from, to int32) {
	all := true
	for k := from; k < to; k++ {
		i := s.order[k]
		swap, result := &swaps[i], &s.results[i]
		*result = store.Result{}
		if l.life.ID == 0 || swap.Life != l.life.ID {
			result.Status = store.OtherLife
			all = false
			continue
		}
		var it item
		if handle := s.handles[k]; handle != 0 {
			it = l.records.at(handle)
		}
		switch {
		case it == nil && swap.Base == 0, it != nil && it.tag() == swap.Base:
			continue
		case it == nil:
			result.Status = store.Changed
		default:
			*result = store.Result{Status: store.Changed, Tag: it.tag(), Record: s.copied(it.record())}
		}
		all = false
	}
	for _, i := range s.order[from:to] {
		swap, result := &swaps[i], &s.results[i]
		switch {
		case !all && result.Status == store.Swapped:
			result.Status = store.Withheld
		case all && swap.Record != nil:
			s.buffer = appendPut(s.buffer, swap.ID, swap.Tag, swap.Record)
		}
	}
}

// copied returns a copy of a record for a result.
func (s *Store) copied(record []byte) []byte {
	const block = 16 << 10
	if len(record) > block/4 {
		return bytes.Clone(record)
	}
	if len(s.records) < len(record) {
		s.records = make([]byte, block)
	}
	n := copy(s.records, record)
	result := s.records[:n:n]
	s.records = s.records[n:]
	return result
}

// perform applies an entry that was appended to the records in memory.
func (s *Store) perform(w *work, swaps []store.Swap) {
	now, records := s.seconds(), w.log.records
	for k := w.from; k < w.judged; k++ {
		i := s.order[k]
		swap := &swaps[i]
		if swap.Record == nil || s.results[i].Status != store.Swapped {
			continue
		}
		// If the swaps have a stream twice, its item may be another's by now.
		if handle := s.handles[k]; handle != 0 && records.at(handle).is(swap.ID) && records.replace(handle, swap.Tag, now, swap.Record) {
			continue
		}
		records.put(swap.ID, swap.Tag, now, swap.Record)
	}
}

// SetAside implements store.Shared. The record is kept in the log and returned by Aside: for each group the latest 16,
// together at most 64 KiB, for at most 30 days.
func (s *Store) SetAside(ctx context.Context, id streamid.ID, record []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return ErrClosed
	}
	moved, err := s.setAside(ctx, id, record)
	if err != nil {
		err = fmt.Errorf("log: set aside: %w", err)
	}
	if s.opts.Observer != nil {
		s.opts.Observer.SetAside(ctx, moved, err)
	}
	return err
}

func (s *Store) setAside(ctx context.Context, id streamid.ID, record []byte) (moved bool, err error) {
	s.works = s.works[:0]
	defer s.release()
	s.take(s.replicas[store.Group(id, s.opts.Groups)], 0, 1)
	judge := func(w *work) error {
		w.judged, w.entry, w.entryEnd = 1, 0, 0
		it, _ := w.log.records.find(id)
		if moved = it != nil && bytes.Equal(it.record(), record); !moved {
			return nil
		}
		w.id = rand.Uint64() | 1
		s.buffer = appendHeader(s.buffer, flavourEntry, s.seconds(), w.log.end.Number+1)
		s.buffer = appendKept(s.buffer, itemAside, s.seconds(), id, it.tag(), record)
		s.buffer = appendChecksum(s.buffer, 0, w.id)
		w.entryEnd = len(s.buffer)
		return nil
	}
	perform := func(w *work) {
		it, _ := w.log.records.find(id)
		w.log.keepAside(&reader{id: id, tag: it.tag(), record: record, written: s.seconds()})
		w.log.records.remove(id)
	}
	_, err = s.work(ctx, judge, perform)
	return moved, err
}

// Aside returns the records that were set aside, by group. It reads all logs.
func (s *Store) Aside(ctx context.Context) (all []Aside, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	for _, l := range s.replicas {
		tail, err := s.read(ctx, l.number, Position{})
		if err == nil {
			other := &replica{number: l.number, groups: l.groups}
			err = other.follow(&tail)
			all = append(all, other.aside...)
		}
		if err != nil {
			return nil, fmt.Errorf("log: aside: %w", err)
		}
	}
	return all, nil
}
