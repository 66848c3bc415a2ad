// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/deltaring/deltaring/d2c/store/log"
)

// Options say where logs are kept. The zero value of each field selects its default, except for Bucket and Name, which are
// required.
type Options struct {
	// Bucket holds the logs. It must exist.
	Bucket string
	// Name identifies the owner of the logs. Drivers with the same Bucket, Prefix and Name share them. At most 64 bytes.
	Name string
	// Prefix begins all keys, followed by a slash. Parts of letters, digits, dots, hyphens and underscores, separated by
	// slashes, at most 256 bytes. Default d2c.
	Prefix string
	// AttemptTimeout bounds each attempt of a request. Default 5s.
	AttemptTimeout time.Duration
	// MaxAttempts bounds how often a request is sent that is not answered or cannot be served yet, with pauses of 50 ms, 100
	// ms and so on up to 2 s. Default 4.
	MaxAttempts int
	// MaxRequests bounds the number of concurrent requests. Default 32.
	MaxRequests int
	// LazySnapshots leaves it to the next append to a log to put a written snapshot in place, in the same request. Compact
	// then does not wait for that, and a snapshot costs one request less. Until the append, the log is unchanged, only
	// longer.
	LazySnapshots bool
	// Observer, if not nil, is informed of each request. It is called by several goroutines at a time.
	Observer Observer

	// prevent unkeyed literal initialization
	_ struct{}
}

// Observer receives what a Driver does.
type Observer interface {
	// Requested is called after each request with the bytes of data it sent or received, the time it took, and its error. A
	// condition that does not hold is no error.
	Requested(ctx context.Context, op Operation, size int, took time.Duration, err error)
}

const (
	defaultPrefix         = "d2c"
	defaultAttemptTimeout = 5 * time.Second
	defaultMaxAttempts    = 4
	defaultMaxRequests    = 32

	maxName   = 64
	maxPrefix = 256
	maxLog    = 1<<16 - 1

	// A head has room for tailSize bytes of entries, or for tailEntries of them, whichever is more, but not for more than tailLimit. What
	// it has is written again with each append; what it has no room for is a request more.
	tailSize    = 256 << 10
	tailEntries = 4
	tailLimit   = 16 << 20

	// grace is how long an object is kept after the last head that named it, for whoever is reading.
	grace = 10 * time.Minute
	// leftover is how long an object that no head names is taken for one that a head may yet name. Nothing hangs on it: see sweep.
	leftover = 24 * time.Hour
	// turns bounds how often what others have changed meanwhile is done anew.
	turns = 4
)

// Driver is a log.Driver that keeps logs in a bucket. It starts no goroutines and needs no Close.
type Driver struct {
	bucket *bucket
	root   string // what the keys of its logs begin with

	mu   sync.Mutex
	logs map[int]*logHead

	lazy bool // about snapshots

	trying latch // held while the store is tried
	fit    bool

	// Others in tests.
	tailSize, tailEntries int
	grace, leftover       time.Duration
}

var _ log.Driver = (*Driver)(nil)

// logHead is a log as far as it is known.
type logHead struct {
	latch
	head  *head  // as of etag
	etag  string // empty if there is no head
	known bool   // that is what was there last; not after a request of which no answer came
	turn  uint64 // grows when the head is found to be another than we have put there

	pending *pending // a snapshot that waits for an append
	garbage []garbage

	compacting latch // held by whoever makes snapshots, and deletes
	swept      time.Time
}

// pending is a snapshot that is written, and that whoever puts the next head may name in it if the turn is as it was.
type pending struct {
	snapshot snapshot
	turn     uint64
}

// garbage is an object that the head does not name since then.
type garbage struct {
	key   string // its end
	since time.Time
}

// latch is a mutex that is waited for no longer than a context.
type latch chan struct{}

func (l latch) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	default:
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l latch) unlock() { <-l }

// New returns a Driver for a bucket. It does not contact the store; the Driver tests the store before its first use: see
// Probe. Configure the client with Tune.
func New(client *awss3.Client, opts Options) (*Driver, error) {
	if opts.Prefix == "" {
		opts.Prefix = defaultPrefix
	}
	if opts.AttemptTimeout == 0 {
		opts.AttemptTimeout = defaultAttemptTimeout
	}
	if opts.MaxAttempts == 0 {
		opts.MaxAttempts = defaultMaxAttempts
	}
	if opts.MaxRequests == 0 {
		opts.MaxRequests = defaultMaxRequests
	}
	switch {
	case client == nil:
		return nil, errors.New("s3: client: must not be nil")
	case opts.Bucket == "":
		return nil, errors.New("s3: bucket: must not be empty")
	case opts.Name == "" || len(opts.Name) > maxName:
		return nil, fmt.Errorf("s3: name: must have 1 to %d bytes, got %q", maxName, opts.Name)
	case opts.AttemptTimeout < time.Millisecond:
		return nil, fmt.Errorf("s3: attempt timeout: must be a millisecond at least, got %v", opts.AttemptTimeout)
	case opts.MaxAttempts < 0:
		return nil, fmt.Errorf("s3: max attempts: must be positive, got %d", opts.MaxAttempts)
	case opts.MaxRequests < 0:
		return nil, fmt.Errorf("s3: max requests: must be positive, got %d", opts.MaxRequests)
	}
	if err := ValidatePrefix(opts.Prefix); err != nil {
		return nil, fmt.Errorf("s3: prefix: %w", err)
	}
	return &Driver{
		bucket: &bucket{
			client: client, name: opts.Bucket, prefix: opts.Prefix, attempt: opts.AttemptTimeout, attempts: opts.MaxAttempts,
			slots: make(chan struct{}, opts.MaxRequests), observer: opts.Observer,
		},
		root: opts.Prefix + "/" + escape(opts.Name) + "/",
		logs: map[int]*logHead{}, lazy: opts.LazySnapshots, trying: make(latch, 1),
		tailSize: tailSize, tailEntries: tailEntries, grace: grace, leftover: leftover,
	}, nil
}

// ValidatePrefix reports what is wrong with a prefix.
func ValidatePrefix(prefix string) error {
	if len(prefix) > maxPrefix {
		return fmt.Errorf("must have at most %d bytes, got %d", maxPrefix, len(prefix))
	}
	for part := range strings.SplitSeq(prefix, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return fmt.Errorf("must be parts with slashes between them, none at the begin or the end, got %q", prefix)
		}
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r) {
				return fmt.Errorf("must not contain %q", r)
			}
		}
	}
	return nil
}

// Tune sets the options that this package works best with. It disables the client's retries, because only the Driver can
// interpret the answer to a repeated request, and the client's default checksums, because all objects of this package
// contain one.
func Tune(o *awss3.Options) {
	o.Retryer = aws.NopRetryer{}
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
}

// Versions reports whether the bucket keeps old versions, as far as answers have shown. It then keeps every head ever
// written, which takes more room than everything else. A lifecycle rule can delete them.
func (d *Driver) Versions() bool { return d.bucket.versions.Load() }

func (d *Driver) log(n int) *logHead {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.logs[n]
	if l == nil {
		l = &logHead{latch: make(latch, 1), compacting: make(latch, 1), head: new(head)}
		d.logs[n] = l
	}
	return l
}

// logKey is what the keys of a log begin with.
func (d *Driver) logKey(n int) string { return fmt.Sprintf("%s%d/", d.root, n) }

func checkLog(n int) error {
	if n < 0 || n > maxLog {
		return fmt.Errorf("s3: log: must be 0 to %d, got %d", maxLog, n)
	}
	return nil
}

// refresh reads the head, if it is not the one that is known.
func (d *Driver) refresh(ctx context.Context, n int, l *logHead) error {
	l.known = false
	key := d.logKey(n) + headKey
	body, etag, err := d.bucket.get(ctx, key, l.etag, tailLimit)
	switch {
	case l.etag != "" && unchanged(err):
	case absent(err):
		if l.etag != "" {
			l.head, l.etag = new(head), ""
			l.turn++
		}
	case err != nil:
		return err
	case etag == l.etag: // of a store that does not go by If-None-Match here
	default:
		h, err := decodeHead(body)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		l.head, l.etag = h, etag
		l.turn++
	}
	l.known = true
	return nil
}

// replace puts a head in the place of the one that is known, with an entry at its end if data is not nil. If it is not replaced the
// head is not known any more: lost says that this is because it was not the one that was known, which may mean that an earlier attempt
// has replaced it if maybe.
func (d *Driver) replace(ctx context.Context, n int, l *logHead, next *head, id uint64, data []byte) (lost, maybe bool, err error) {
	h := *next
	h.nonce = mathrand.Uint64()
	body, tail := h.encode(id, data)
	h.tail = tail
	if data != nil {
		h.ids = append(slices.Clip(h.ids), id)
	}
	condition := l.etag
	if condition == "" {
		condition = "*"
	}
	etag, maybe, err := d.bucket.put(ctx, d.logKey(n)+headKey, body, condition)
	if err != nil {
		l.known = false
		return conditional(err), maybe, err
	}
	l.head, l.etag = &h, etag
	l.known = etag != ""
	return false, false, nil
}

// Append implements log.Driver.
func (d *Driver) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	for i := range appends {
		if err := checkLog(appends[i].Log); err != nil {
			return nil, err
		}
		if uint64(len(appends[i].Entry)) > math.MaxUint32 {
			return nil, fmt.Errorf("s3: entry: must have at most %d bytes, got %d", uint32(math.MaxUint32), len(appends[i].Entry))
		}
	}
	if len(appends) == 0 {
		return nil, nil
	}
	if err := d.try(ctx); err != nil {
		return nil, err
	}
	done := make([]bool, len(appends))
	errs := make([]error, len(appends))
	var wg sync.WaitGroup
	for i := range appends[1:] {
		wg.Go(func() { done[i+1], errs[i+1] = d.append(ctx, &appends[i+1]) })
	}
	done[0], errs[0] = d.append(ctx, &appends[0])
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, d.bucket.explain(fmt.Sprintf("append to log %d", appends[i].Log), err)
		}
	}
	return done, nil
}

func (d *Driver) append(ctx context.Context, a *log.Append) (bool, error) {
	l := d.log(a.Log)
	if err := l.lock(ctx); err != nil {
		return false, err
	}
	defer l.unlock()
	if a.Entry == nil || !l.known || l.head.end() != a.After {
		if err := d.refresh(ctx, a.Log, l); err != nil {
			return false, err
		}
		if l.head.end() != a.After {
			return false, nil
		}
	}
	if a.Entry == nil {
		return true, nil
	}
	for range turns {
		lost, maybe, err := d.extend(ctx, l, a)
		if err == nil {
			return true, nil
		} else if !lost {
			return false, err
		}
		// Another has put a head: with an entry, or only with a snapshot. Or one of the attempts before the last has done it. Nothing
		// that is under way still can, because no two heads have the same ETag.
		if err := d.refresh(ctx, a.Log, l); err != nil {
			return false, err
		}
		if l.head.end() == a.After {
			continue
		}
		if !maybe {
			return false, nil
		}
		return d.has(ctx, a.Log, l.head, log.Position{Number: a.After.Number + 1, ID: a.ID}, errUnknown)
	}
	return false, errBusy
}

// extend puts a head that has the entry, and before that a segment if the head has no more room. See replace for what it returns.
func (d *Driver) extend(ctx context.Context, l *logHead, a *log.Append) (lost, maybe bool, err error) {
	next := l.head
	var dropped []string
	if p := l.pending; p != nil {
		l.pending = nil
		if p.turn == l.turn && p.snapshot.at.Number > l.head.snapshot.at.Number {
			next, dropped = next.compacted(p.snapshot)
		}
	}
	if size := len(next.tail) + entryHeader + len(a.Entry); size > tailLimit && len(next.ids) > 0 || size > d.tailSize && len(next.ids) >= d.tailEntries {
		body := encodeSegment(next.tail)
		next = next.moved(describe(newObjectName(), body))
		moved := &next.segments[len(next.segments)-1]
		if err := d.create(ctx, d.logKey(a.Log)+moved.key(), body); err != nil {
			return false, false, err
		}
	}
	if lost, maybe, err = d.replace(ctx, a.Log, l, next, a.ID, a.Entry); err == nil {
		l.drop(dropped)
	}
	return lost, maybe, err
}

// has reports whether the log has the position. If that cannot be told, because it is before the snapshot, the error is before.
func (d *Driver) has(ctx context.Context, n int, h *head, at log.Position, before error) (bool, error) {
	switch end := h.end(); {
	case at == h.snapshot.at || at == end:
		return true, nil
	case at.Number < h.snapshot.at.Number:
		return false, before
	case at.Number == h.snapshot.at.Number || at.Number >= end.Number:
		return false, nil
	}
	if start := h.tailStart().Number; at.Number > start {
		return h.ids[at.Number-start-1] == at.ID, nil
	}
	for i := range h.segments {
		s := &h.segments[i]
		if at.Number > s.end.Number {
			continue
		}
		if at.Number == s.end.Number {
			return at.ID == s.end.ID, nil
		}
		ids := s.ids
		if ids == nil {
			var err error
			if ids, _, err = d.segment(ctx, n, s); err != nil {
				return false, err
			}
		}
		return ids[at.Number-s.start()-1] == at.ID, nil
	}
	return false, nil
}

// create writes an object under a name that nobody has used. That it is there already is because an earlier attempt has written it. The
// condition is for buckets whose policy asks for one.
func (d *Driver) create(ctx context.Context, key string, body []byte) error {
	_, _, err := d.bucket.put(ctx, key, body, "*")
	if conditional(err) {
		return nil
	}
	return err
}

// segment reads the entries of a segment.
func (d *Driver) segment(ctx context.Context, n int, s *segment) ([]uint64, []log.Entry, error) {
	key := d.logKey(n) + s.key()
	body, err := d.object(ctx, key, &s.object)
	if err != nil {
		return nil, nil, err
	}
	ids, entries, err := s.decode(body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", key, err)
	}
	return ids, entries, nil
}

// object reads a whole object, or says that it is missing.
func (d *Driver) object(ctx context.Context, key string, o *object) ([]byte, error) {
	body, _, err := d.bucket.get(ctx, key, "", o.size)
	if absent(err) {
		return nil, fmt.Errorf("%s: %w", key, errMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return body, nil
}

// Read implements log.Driver. It costs one request, and one for each object named in the head that holds part of the result.
func (d *Driver) Read(ctx context.Context, n int, after log.Position) (log.Tail, error) {
	if err := checkLog(n); err != nil {
		return log.Tail{}, err
	}
	if err := d.try(ctx); err != nil {
		return log.Tail{}, err
	}
	tail, err := d.read(ctx, n, after)
	if err != nil {
		return log.Tail{}, d.bucket.explain(fmt.Sprintf("read log %d", n), err)
	}
	return tail, nil
}

func (d *Driver) read(ctx context.Context, n int, after log.Position) (log.Tail, error) {
	l := d.log(n)
	var last *head
	var missing error
	for range turns {
		if err := l.lock(ctx); err != nil {
			return log.Tail{}, err
		}
		err := d.refresh(ctx, n, l)
		h := l.head
		l.unlock()
		if err != nil {
			return log.Tail{}, err
		}
		if h == last {
			break // what is missing is not because of a newer head
		}
		last = h
		tail, err := d.load(ctx, n, h, after)
		if !errors.Is(err, errMissing) {
			return tail, err
		}
		missing = err
	}
	return log.Tail{}, missing
}

// load reads what a head says that is after a position.
func (d *Driver) load(ctx context.Context, n int, h *head, after log.Position) (log.Tail, error) {
	tailStart := h.tailStart()
	if after == tailStart || after.Number > tailStart.Number {
		// Most often: nothing but the head is needed.
		if ok, err := d.has(ctx, n, h, after, nil); err != nil {
			return log.Tail{}, err
		} else if ok {
			return log.Tail{From: after, Entries: h.own(after.Number)}, nil
		}
	}
	// What is missing from the position on has to be read. The first of it tells whether the position is there.
	t := log.Tail{From: h.snapshot.at}
	segments := h.segments
	if after.Number >= h.snapshot.at.Number && after.Number < tailStart.Number {
		for len(segments) > 0 && segments[0].end.Number <= after.Number {
			segments = segments[1:]
		}
		if ok, err := d.has(ctx, n, h, after, nil); err != nil {
			return log.Tail{}, err
		} else if ok {
			t.From = after
		} else {
			segments = h.segments
		}
	}
	parts := make([][]log.Entry, len(segments))
	errs := make([]error, len(segments)+1)
	var wg sync.WaitGroup
	for i := range segments {
		wg.Go(func() { _, parts[i], errs[i] = d.segment(ctx, n, &segments[i]) })
	}
	if t.From == h.snapshot.at && t.From != after && h.snapshot.name != (objectName{}) {
		key := d.logKey(n) + h.snapshot.key()
		body, err := d.object(ctx, key, &h.snapshot.object)
		if err == nil {
			if t.Snapshot, err = h.snapshot.decode(body); err != nil {
				err = fmt.Errorf("%s: %w", key, err)
			}
		}
		errs[len(segments)] = err
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return log.Tail{}, err
		}
	}
	at := t.From.Number
	for i := range segments {
		if s := &segments[i]; s.end.Number > at {
			t.Entries = append(t.Entries, parts[i][at-s.start():]...)
			at = s.end.Number
		}
	}
	t.Entries = append(t.Entries, h.own(at)...)
	return t, nil
}

// own returns copies of the entries that the head has itself after one.
func (h *head) own(after uint64) []log.Entry {
	_, entries, err := decodeEntries(bytes.Clone(h.tail), uint32(len(h.ids)))
	if err != nil {
		panic(err) // they were read before, or written
	}
	return entries[after-h.tailStart().Number:]
}

// Compact implements log.Driver. It costs two requests, and later one to delete objects that the head no longer names.
func (d *Driver) Compact(ctx context.Context, n int, at log.Position, data []byte) error {
	if err := checkLog(n); err != nil {
		return err
	}
	if at.Number == 0 {
		return nil
	}
	if err := d.try(ctx); err != nil {
		return err
	}
	l := d.log(n)
	if err := l.compacting.lock(ctx); err != nil {
		return err
	}
	defer l.compacting.unlock()
	if err := d.compact(ctx, n, l, at, data); err != nil {
		return d.bucket.explain(fmt.Sprintf("compact log %d", n), err)
	}
	d.collect(ctx, n, l)
	return nil
}

// compact writes the snapshot before the log is locked. A head may name it only if it takes the place of one that was known before: see
// sweep. Heads that we have put in each other's place are as good; another head means another snapshot.
func (d *Driver) compact(ctx context.Context, n int, l *logHead, at log.Position, data []byte) error {
	body := encodeSnapshot(data)
	written := map[objectName]bool{} // of which the head may have one
	for range turns {
		turn, ok, err := d.compactable(ctx, n, l, at, written)
		if err != nil || !ok {
			return err
		}
		s := snapshot{describe(newObjectName(), body), at}
		if err := d.create(ctx, d.logKey(n)+s.key(), body); err != nil {
			return err
		}
		written[s.name] = true
		if done, err := d.switchTo(ctx, n, l, s, turn); done || err != nil {
			return err
		}
	}
	return nil // others are faster, each time
}

// compactable reports whether the log has the position, and no snapshot of ours, and to whom it was said last.
func (d *Driver) compactable(ctx context.Context, n int, l *logHead, at log.Position, written map[objectName]bool) (turn uint64, ok bool, err error) {
	for range turns {
		if err := l.lock(ctx); err != nil {
			return 0, false, err
		}
		if !l.known {
			err = d.refresh(ctx, n, l)
		}
		h, turn := l.head, l.turn
		l.unlock()
		switch {
		case err != nil:
			return 0, false, err
		case written[h.snapshot.name]:
			return 0, false, nil
		}
		ok, err := d.has(ctx, n, h, at, nil)
		if !errors.Is(err, errMissing) {
			return turn, ok, err
		}
		// What the head names is gone, so there must be another.
		if err := l.lock(ctx); err != nil {
			return 0, false, err
		}
		l.known = false
		l.unlock()
	}
	return 0, false, nil
}

// switchTo has the head name the snapshot, or leaves that to the next append. It is not done if the head is not as it was, but for what we
// have put there.
func (d *Driver) switchTo(ctx context.Context, n int, l *logHead, s snapshot, turn uint64) (done bool, err error) {
	if err := l.lock(ctx); err != nil {
		return false, err
	}
	defer l.unlock()
	if !l.known {
		if err := d.refresh(ctx, n, l); err != nil {
			return false, err
		}
	}
	if l.turn != turn {
		return false, nil
	}
	if d.lazy {
		if l.pending != nil {
			l.drop([]string{l.pending.snapshot.key()}) // which no head has named, and none is under way that does
		}
		l.pending = &pending{s, turn}
		return true, nil
	}
	next, dropped := l.head.compacted(s)
	lost, _, err := d.replace(ctx, n, l, next, 0, nil)
	switch {
	case lost:
		return false, nil
	case err != nil:
		return false, err
	}
	l.drop(dropped)
	return true, nil
}

// drop takes note of objects that the head does not name any more, and that nothing under way can have it name.
func (l *logHead) drop(keys []string) {
	now := time.Now()
	for _, key := range keys {
		l.garbage = append(l.garbage, garbage{key, now})
	}
	// What is forgotten a sweep finds.
	if n := len(l.garbage); n > maxGarbage {
		l.garbage = l.garbage[n-maxGarbage:]
	}
}
