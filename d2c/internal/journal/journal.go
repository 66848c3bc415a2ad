// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/d2c/store"
)

// The keys. What is written or deleted together is next to each other, away from other large values: a store that keeps keys
// in order, as bbolt does, rewrites the neighbours too.
const KeyHead = "m/head"

func KeyEntry(seq uint64) string        { return fmt.Sprintf("j/%016x", seq) }
func KeyManifest(shard int) string      { return fmt.Sprintf("m/%02x", shard) }
func KeyAside(key string, n int) string { return fmt.Sprintf("damaged/%d/%s", n, key) }
func KeyChunk(shard int, parity uint8, i uint32) string {
	return fmt.Sprintf("c/%d/%02x/%04x", parity, shard, i)
}

// ChunkSize is about how long a chunk of a checkpoint gets. Tests change it.
var ChunkSize = 256 << 10

const (
	// roundSize is about how much one round of checkpoints writes: many small shards together, few large ones.
	roundSize = 1 << 19
	// maxOvershoot is by how much the journal may pass four times the length at which it is cut before batches are refused.
	maxOvershoot = 64 << 20
	// maxKeptRound bounds the scratch space that is kept from one round to the next.
	maxKeptRound = 4 * roundSize

	firstRetry, lastRetry = time.Second, 30 * time.Second
)

// Journal keeps what transactions have changed: as one entry each at first, until the shards concerned are written whole, as
// checkpoints, and the entries deleted. It is cut when it gets half as long again as all checkpoints together: storage holds
// about two and a half times the live records, and two checkpoints are written for three journals.
//
// A checkpoint takes effect when its manifest is stored; until then the last one does. Chunks alternate between two sets of
// keys for that. Entries are numbered without holes, and deleted only once the head says that they are no longer needed, so
// one that is missing is known to be lost. An entry that could not be stored, or was but nobody knows, is overwritten by the
// next: it takes the same number.
type Journal struct {
	p       *commit.Pipeline
	storage store.Storage
	owner   owner
	trouble func(error)
	minimum int64

	entry  []byte // scratch space of append, as is writer; copier is that of capture
	writer table.RecordWriter
	copier table.RecordWriter
	chunks []byte // scratch space of capture
	epoch  int64  // what records count seconds from; see recovery.finish
	undone *round // its manifests may be stored or not
	opened uint32 // how often the journal has been
	headed uint64 // first of the head that is stored

	wake chan struct{}
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	last    uint64   // number of the latest entry
	chain   uint64   // header checksum of the latest entry, 0 if not known
	first   uint64   // number of the first that is needed
	oldest  uint64   // of the oldest that may still be there
	sizes   []uint32 // of the entries from first on
	bytes   int64    // their sum
	high    int64
	shards  [table.ShardCount]checkpointed
	failing error // of the latest round of checkpoints
	stored  int64 // bytes in checkpoints
}

// checkpointed is what is known of a shard's checkpoint.
type checkpointed struct {
	seq     uint64 // latest entry in it
	changed uint64 // latest entry with a change to the shard
	stored  bool   // there is a manifest
	shrunk  bool   // so many streams have expired that a new one is worth it
	parity  uint8
	chunks  uint32
	left    [2]uint32 // chunks that may be there, by parity
	streams int
	bytes   int64

	expiries uint64 // how often streams have expired
	live     int    // that the last of these has left
}

// limit is the length at which the journal is cut. It is called with j.mu held.
func (j *Journal) limit() int64 { return max(j.stored+j.stored/2, j.minimum) }

// Keep implements commit.Keeper: it stores what the transaction has changed, as one entry.
func (j *Journal) Keep(ctx context.Context, tx *commit.Tx) error {
	f, err := j.next()
	if err != nil {
		return err
	}
	tx.Fold()
	ahead := j.p.Time().Add(commit.MaxAhead).UnixNano()
	b := beginFrame(j.entry[:0])
	copies := tx.Copies()
	for at := 0; at < tx.Len(); {
		shard := tx.Shard(at)
		w := &j.writer
		w.Reset()
		for ; at < tx.Len() && tx.Shard(at) == shard; at++ {
			if !tx.Changed(at) {
				continue
			}
			s := tx.Copy(at)
			w.Add(copies, at, j.epoch)
			if emitted := copies.Emitted(s); emitted > f.high && emitted <= ahead {
				f.high = emitted
			}
		}
		if len(w.Records) > 0 {
			b = f.section(b, shard, w)
		}
	}
	if cap(b) <= 1<<22 {
		j.entry = b
	}
	if f.shards == 0 {
		return nil // repeats and such
	}
	b = f.end(f.trailer(b))
	key := KeyEntry(f.seq)
	if err := j.storage.Put(ctx, []store.KeyValue{{Key: key, Value: b}}, nil); err != nil {
		return commit.StoreError{Err: fmt.Errorf("d2c: journal entry %s is not stored: %w", key, err)}
	}
	tx.Stored = true
	j.appended(&f, b)
	return nil
}

// next begins the next entry, unless the journal is too long.
func (j *Journal) next() (f entryFrame, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.bytes > 4*j.limit()+maxOvershoot {
		err = errors.New("checkpoints do not keep up")
		if j.failing != nil {
			err = j.failing
		}
		return f, commit.StoreError{Err: fmt.Errorf("d2c: journal is full at %d bytes: %w", j.bytes, err)}
	}
	return entryFrame{owner: j.owner, seq: j.last + 1, opened: j.opened, before: j.chain, high: j.high}, nil
}

// appended notes that an entry is stored.
func (j *Journal) appended(f *entryFrame, b []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.chain, j.high = f.seq, checksumOf(b), f.high
	j.sizes = append(j.sizes, uint32(len(b)))
	j.bytes += int64(len(b))
	for i := range j.shards {
		if f.shards>>i&1 != 0 {
			j.shards[i].changed = f.seq
		}
	}
	if j.bytes > j.limit() {
		j.signal()
	}
}

// Expired notes that streams of a shard have expired, of which live are left.
func (j *Journal) Expired(shard, live int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.shards[shard]
	s.expiries++
	s.live = live
	if s.streams > 2*live {
		s.shrunk = true
		j.signal()
	}
}

func (j *Journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// start begins to write checkpoints in the background.
func (j *Journal) start() {
	ctx, cancel := context.WithCancel(context.Background())
	j.stop, j.done = cancel, make(chan struct{})
	go j.run(ctx)
}

// Close ends what Open began. It waits for a checkpoint that is under way, or returns ctx's error.
func (j *Journal) Close(ctx context.Context) error {
	j.stop()
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("d2c: waiting for storage: %w", ctx.Err())
	}
}

// Size returns the bytes in storage: of the journal that is still needed, and of the checkpoints.
func (j *Journal) Size() (journal, checkpoints int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bytes, j.stored
}

func (j *Journal) run(ctx context.Context) {
	defer close(j.done)
	retry := time.NewTimer(0)
	defer retry.Stop()
	wait := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		case <-retry.C:
		}
		err := j.checkpoints(ctx)
		if ctx.Err() != nil {
			return
		}
		j.report(err)
		if err == nil {
			wait = firstRetry
			continue
		}
		retry.Reset(wait)
		wait = min(2*wait, lastRetry)
	}
}

// report tells about trouble once, and once that it is over.
func (j *Journal) report(err error) {
	j.mu.Lock()
	was := j.failing
	j.failing = err
	j.mu.Unlock()
	if j.trouble != nil && (err == nil) != (was == nil) {
		j.trouble(err)
	}
}

// checkpoints writes checkpoints until the journal is short enough.
func (j *Journal) checkpoints(ctx context.Context) error {
	for {
		shards := j.due()
		if len(shards) == 0 {
			return nil
		}
		if err := j.Checkpoint(ctx, shards); err != nil {
			return err
		}
	}
}

// Stop ends the goroutine that writes checkpoints.
func (j *Journal) Stop() {
	j.stop()
	<-j.done
}

// Due reports whether there are checkpoints to be written, or entries to be deleted.
func (j *Journal) Due() bool {
	j.mu.Lock()
	busy := j.oldest != j.first
	j.mu.Unlock()
	return busy || len(j.due()) > 0
}

// due returns the shards to write in one round: those that hold up the journal the most, if it is too long, and those that
// have shrunk.
func (j *Journal) due() []int {
	j.mu.Lock()
	defer j.mu.Unlock()
	var shards []int
	tooLong := j.bytes > j.limit()
	for i := range j.shards {
		if s := &j.shards[i]; s.shrunk || tooLong && s.changed > s.seq {
			shards = append(shards, i)
		}
	}
	if len(shards) == 0 {
		return nil
	}
	slices.SortFunc(shards, func(a, b int) int { return cmp.Compare(j.shards[a].seq, j.shards[b].seq) })
	bytes := int64(0)
	for n, i := range shards {
		if bytes += max(j.shards[i].bytes, j.stored/table.ShardCount); bytes > roundSize {
			return shards[:n+1]
		}
	}
	return shards
}

// Checkpoint writes the checkpoints of shards and cuts the journal accordingly.
func (j *Journal) Checkpoint(ctx context.Context, shards []int) error {
	if j.undone != nil {
		// The chunks of one set are in effect, those of the other may be: finish that first.
		if err := j.finish(ctx, j.undone); err != nil {
			return err
		}
	}
	round := j.capture(shards)
	// A large shard has many megabytes: not all in one call, so that commits get in between.
	for chunks := round.chunks; len(chunks) > 0; {
		n, size := 0, 0
		for n < len(chunks) && (n == 0 || size+len(chunks[n].Value) <= 2*roundSize) {
			size += len(chunks[n].Value)
			n++
		}
		if err := j.storage.Put(ctx, chunks[:n], nil); err != nil {
			return fmt.Errorf("d2c: checkpoint chunk %s is not stored: %w", chunks[0].Key, err)
		}
		chunks = chunks[n:]
	}
	return j.finish(ctx, round)
}

// finish puts a round of checkpoints into effect when their chunks are stored.
func (j *Journal) finish(ctx context.Context, round *round) error {
	j.undone = round
	if err := j.storage.Put(ctx, round.manifests, nil); err != nil {
		return fmt.Errorf("d2c: checkpoint manifest %s is not stored: %w", round.manifests[0].Key, err)
	}
	j.undone = nil
	head, deletes := j.settle(round)
	if err := j.storage.Put(ctx, []store.KeyValue{head}, nil); err != nil {
		return fmt.Errorf("d2c: journal %s is not stored: %w", KeyHead, err)
	}
	j.headed = round.first
	return j.delete(ctx, round, deletes)
}

// round is one round of checkpoints.
type round struct {
	shards    []int
	after     []checkpointed // by place in shards, once the manifests are stored
	chunks    []store.KeyValue
	manifests []store.KeyValue
	first     uint64
}

// capture copies shards as they are between two commits.
func (j *Journal) capture(shards []int) (r *round) {
	j.p.Between(func() { r = j.copy(shards) })
	return r
}

func (j *Journal) copy(shards []int) *round {
	j.mu.Lock()
	defer j.mu.Unlock()

	r := &round{shards: shards}
	// What is needed of the journal afterwards.
	r.first = j.last + 1
	for i := range j.shards {
		if s := &j.shards[i]; s.changed > s.seq && !slices.Contains(shards, i) {
			r.first = min(r.first, s.seq+1)
		}
	}
	// A shard that was clean when the journal was last cut has nothing in what was cut off.
	r.first = max(r.first, j.first)
	chunks := j.chunks[:0]
	var ends []int
	for _, i := range shards {
		sh, was := &j.p.Table.Shards[i], &j.shards[i]
		sh.Lock() // streams may expire
		is := checkpointed{seq: j.last, changed: was.changed, parity: was.parity ^ 1, left: was.left, streams: sh.N, expiries: was.expiries}
		w := &j.copier
		chunk := func() {
			f := chunkFrame{owner: j.owner, seq: is.seq, shard: uint8(i), parity: is.parity, place: is.chunks}
			from := len(chunks)
			chunks = f.append(chunks, w)
			r.chunks = append(r.chunks, store.KeyValue{Key: KeyChunk(i, is.parity, is.chunks)})
			ends = append(ends, len(chunks))
			is.chunks++
			is.bytes += int64(len(chunks) - from)
			w.Reset()
		}
		for n := range sh.N {
			if w.Add(sh, n, j.epoch); len(w.Records) >= ChunkSize {
				chunk()
			}
		}
		if len(w.Records) > 0 {
			chunk()
		}
		sh.Unlock()
		is.left[is.parity] = max(is.left[is.parity], is.chunks)
		f := manifestFrame{
			owner: j.owner, seq: is.seq, shard: uint8(i), parity: is.parity, chunks: is.chunks,
			left: max(is.left[0], is.left[1]), oldest: j.headed, first: r.first, floor: sh.Floor, high: j.high,
		}
		r.manifests = append(r.manifests, store.KeyValue{Key: KeyManifest(i), Value: f.value()})
		r.after = append(r.after, is)
	}
	from := 0
	for n, end := range ends {
		r.chunks[n].Value = chunks[from:end:end]
		from = end
	}
	if j.chunks = chunks; cap(chunks) > maxKeptRound {
		j.chunks = nil
	}
	return r
}

// settle notes that the manifests are stored. It returns the head to be stored next and the keys that can go then.
func (j *Journal) settle(r *round) (head store.KeyValue, deletes []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for n, i := range r.shards {
		is, s := r.after[n], &j.shards[i]
		j.stored += is.bytes - s.bytes
		is.changed, is.stored = s.changed, true
		if s.expiries != is.expiries { // since the shard was copied
			is.expiries, is.live, is.shrunk = s.expiries, s.live, is.streams > 2*s.live
		}
		*s = is
		for parity, left := range s.left {
			from := uint32(0)
			if uint8(parity) == s.parity {
				from = s.chunks
			}
			for ; from < left; from++ {
				deletes = append(deletes, KeyChunk(i, uint8(parity), from))
			}
		}
	}
	if cut := r.first - j.first; cut > 0 {
		for _, size := range j.sizes[:cut] {
			j.bytes -= int64(size)
		}
		j.sizes = append(j.sizes[:0], j.sizes[cut:]...)
		j.first = r.first
	}
	for seq := j.oldest; seq < j.first; seq++ {
		deletes = append(deletes, KeyEntry(seq))
	}
	return j.head(), deletes
}

// head is called with j.mu held.
func (j *Journal) head() store.KeyValue {
	f := headFrame{owner: j.owner, last: j.last, opened: j.opened, oldest: j.oldest, first: j.first, high: j.high}
	for i := range j.shards {
		if j.shards[i].stored {
			f.manifests |= 1 << i
		}
	}
	return store.KeyValue{Key: KeyHead, Value: f.value()}
}

// delete deletes what a round has made superfluous. What it cannot delete is deleted by the next round.
func (j *Journal) delete(ctx context.Context, r *round, deletes []string) error {
	if len(deletes) == 0 {
		return nil
	}
	if err := j.storage.Put(ctx, nil, deletes); err != nil {
		return fmt.Errorf("d2c: %d keys from %s on are not deleted: %w", len(deletes), deletes[0], err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, i := range r.shards {
		s := &j.shards[i]
		s.left[s.parity], s.left[s.parity^1] = s.chunks, 0
	}
	j.oldest = r.first
	return nil
}
