// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Storage keeps values by key for one Converter; nobody else writes them. It is the only thing that durable state asks of
// its surroundings: any key-value store will do, the Collector's storage extensions for instance. Both methods are called
// concurrently.
type Storage interface {
	// Get returns the values of keys, nil where there is none.
	Get(ctx context.Context, keys []string) ([][]byte, error)
	// Put sets values and deletes keys, which are others; a key to delete need not exist. When it returns nil all of it
	// is durable. After an error, or a crash, any part of it may have happened, key by key: each has the value it had or the
	// one it was to get. Values are not to be kept after it returns.
	Put(ctx context.Context, values []KeyValue, deletes []string) error
}

// KeyValue is a value for Storage. Keys are short and of [0-9a-z/] only.
type KeyValue struct {
	Key   string
	Value []byte
}

// The keys. What is written or deleted together is next to each other, away from other large values: a store that keeps keys
// in order, as bbolt does, rewrites the neighbours too.
const keyHead = "m/head"

func keyEntry(seq uint64) string        { return fmt.Sprintf("j/%016x", seq) }
func keyManifest(shard int) string      { return fmt.Sprintf("m/%02x", shard) }
func keyAside(key string, n int) string { return fmt.Sprintf("damaged/%d/%s", n, key) }
func keyChunk(shard int, parity uint8, i uint32) string {
	return fmt.Sprintf("c/%d/%02x/%04x", parity, shard, i)
}

// chunkSize is about how long a chunk of a checkpoint gets. Tests change it.
var chunkSize = 256 << 10

const (
	// roundSize is about how much one round of checkpoints writes: many small shards together, few large ones.
	roundSize = 1 << 19
	// maxOvershoot is by how much the journal may pass four times the length at which it is cut before batches are refused.
	maxOvershoot = 64 << 20
	// maxAhead is how far ahead of the clock a time given out counts when streams are lost: one point dated in the far
	// future must not keep others from starting again.
	maxAhead = 5 * time.Minute

	// maxKeptRound bounds the scratch space that is kept from one round to the next.
	maxKeptRound = 4 * roundSize

	firstRetry, lastRetry = time.Second, 30 * time.Second
)

// journal keeps what commits have changed: as one entry each at first, until the shards concerned are written whole, as
// checkpoints, and the entries deleted. It is cut when it gets half as long again as all checkpoints together: storage holds
// about two and a half times the live records, and two checkpoints are written for three journals.
//
// A checkpoint takes effect when its manifest is stored; until then the last one does. Chunks alternate between two sets of
// keys for that. Entries are numbered without holes, and deleted only once the head says that they are no longer needed, so
// one that is missing is known to be lost. An entry that could not be stored, or was but nobody knows, is overwritten by the
// next: it takes the same number.
type journal struct {
	storage  Storage
	identity uint64
	trouble  func(error)
	minimum  int64

	entry  []byte // scratch space of append, as is writer; copier is that of capture
	writer recordWriter
	copier recordWriter
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
	shards  [shardCount]checkpointed
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
}

// limit is the length at which the journal is cut. It is called with j.mu held.
func (j *journal) limit() int64 { return max(j.stored+j.stored/2, j.minimum) }

// append stores what the group has changed, as one entry.
func (j *journal) append(ctx context.Context, g *group, c *Converter) error {
	j.mu.Lock()
	f := frame{kind: frameEntry, identity: j.identity, seq: j.last + 1, first: j.chain, count: j.opened, high: j.high}
	var err error
	if j.bytes > 4*j.limit()+maxOvershoot {
		err = errors.New("checkpoints do not keep up")
		if j.failing != nil {
			err = j.failing
		}
		err = fmt.Errorf("d2c: journal is full at %d bytes: %w", j.bytes, err)
	}
	j.mu.Unlock()
	if err != nil {
		return err
	}

	ahead := c.cfg.Now().Add(maxAhead).UnixNano()
	b := f.begin(j.entry[:0])
	at := 0
	for i, end := range g.ends {
		w := &j.writer
		w.reset()
		for ; at < end; at++ {
			s := g.scratch.slot(at)
			if s.meta&flagChanged == 0 {
				continue
			}
			w.add(&g.scratch, s, j.epoch)
			if emitted := g.scratch.emitted(s); emitted > f.high && emitted <= ahead {
				f.high = emitted
			}
		}
		if len(w.records) > 0 {
			b = f.section(b, i, w)
		}
	}
	if cap(b) <= 1<<22 {
		j.entry = b
	}
	if f.shards == 0 {
		return nil // repeats and such
	}
	b = f.end(f.trailer(b))
	key := keyEntry(f.seq)
	if err := j.storage.Put(ctx, []KeyValue{{key, b}}, nil); err != nil {
		return fmt.Errorf("d2c: journal entry %s is not stored: %w", key, err)
	}

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
	return nil
}

// expired notes that streams of a shard have expired, of which live are left.
func (j *journal) expired(shard, live int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := &j.shards[shard]; s.streams > 2*live {
		s.shrunk = true
		j.signal()
	}
}

func (j *journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// start begins to write checkpoints in the background.
func (j *journal) start(c *Converter) {
	ctx, cancel := context.WithCancel(context.Background())
	j.stop, j.done = cancel, make(chan struct{})
	go j.run(ctx, c)
}

func (j *journal) run(ctx context.Context, c *Converter) {
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
		err := j.checkpoints(ctx, c)
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
func (j *journal) report(err error) {
	j.mu.Lock()
	was := j.failing
	j.failing = err
	j.mu.Unlock()
	if j.trouble != nil && (err == nil) != (was == nil) {
		j.trouble(err)
	}
}

// checkpoints writes checkpoints until the journal is short enough.
func (j *journal) checkpoints(ctx context.Context, c *Converter) error {
	for {
		shards := j.due()
		if len(shards) == 0 {
			return nil
		}
		if err := j.checkpoint(ctx, c, shards); err != nil {
			return err
		}
	}
}

// due returns the shards to write in one round: those that hold up the journal the most, if it is too long, and those that
// have shrunk.
func (j *journal) due() []int {
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
		if bytes += max(j.shards[i].bytes, j.stored/shardCount); bytes > roundSize {
			return shards[:n+1]
		}
	}
	return shards
}

// checkpoint writes the checkpoints of shards and cuts the journal accordingly.
func (j *journal) checkpoint(ctx context.Context, c *Converter, shards []int) error {
	if j.undone != nil {
		// The chunks of one set are in effect, those of the other may be: finish that first.
		if err := j.finish(ctx, j.undone); err != nil {
			return err
		}
	}
	round := j.capture(c, shards)
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
func (j *journal) finish(ctx context.Context, round *round) error {
	j.undone = round
	if err := j.storage.Put(ctx, round.manifests, nil); err != nil {
		return fmt.Errorf("d2c: checkpoint manifest %s is not stored: %w", round.manifests[0].Key, err)
	}
	j.undone = nil
	head, deletes := j.settle(round)
	if err := j.storage.Put(ctx, []KeyValue{head}, nil); err != nil {
		return fmt.Errorf("d2c: journal %s is not stored: %w", keyHead, err)
	}
	j.headed = round.first
	return j.delete(ctx, round, deletes)
}

// round is one round of checkpoints.
type round struct {
	shards    []int
	after     []checkpointed // by place in shards, once the manifests are stored
	chunks    []KeyValue
	manifests []KeyValue
	first     uint64
}

// capture copies shards as they are between two commits.
func (j *journal) capture(c *Converter, shards []int) *round {
	c.commits.running.Lock()
	defer c.commits.running.Unlock()
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
		sh, was := &c.shards[i], &j.shards[i]
		is := checkpointed{seq: j.last, changed: was.changed, parity: was.parity ^ 1, left: was.left, streams: sh.n}
		w := &j.copier
		chunk := func() {
			f := frame{
				kind: frameChunk, shard: uint8(i), parity: is.parity, identity: j.identity, seq: is.seq, index: is.chunks,
			}
			from := len(chunks)
			chunks = f.section(f.begin(chunks), i, w)
			f.end(chunks[from:])
			r.chunks = append(r.chunks, KeyValue{Key: keyChunk(i, is.parity, is.chunks)})
			ends = append(ends, len(chunks))
			is.chunks++
			is.bytes += int64(len(chunks) - from)
			w.reset()
		}
		for n := range sh.n {
			if w.add(sh, sh.slot(n), j.epoch); len(w.records) >= chunkSize {
				chunk()
			}
		}
		if len(w.records) > 0 {
			chunk()
		}
		is.left[is.parity] = max(is.left[is.parity], is.chunks)
		f := frame{
			kind: frameManifest, shard: uint8(i), parity: is.parity, identity: j.identity, seq: is.seq,
			count: is.chunks, index: max(is.left[0], is.left[1]), oldest: j.headed, first: r.first, floor: sh.floor, high: j.high,
		}
		r.manifests = append(r.manifests, KeyValue{keyManifest(i), f.end(f.begin(nil))})
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
func (j *journal) settle(r *round) (head KeyValue, deletes []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for n, i := range r.shards {
		is, s := r.after[n], &j.shards[i]
		j.stored += is.bytes - s.bytes
		is.changed, is.stored = s.changed, true
		*s = is
		for parity, left := range s.left {
			from := uint32(0)
			if uint8(parity) == s.parity {
				from = s.chunks
			}
			for ; from < left; from++ {
				deletes = append(deletes, keyChunk(i, uint8(parity), from))
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
		deletes = append(deletes, keyEntry(seq))
	}
	return j.head(), deletes
}

// head is called with j.mu held.
func (j *journal) head() KeyValue {
	f := frame{kind: frameHead, identity: j.identity, seq: j.last, count: j.opened, oldest: j.oldest, first: j.first, high: j.high}
	for i := range j.shards {
		if j.shards[i].stored {
			f.shards |= 1 << i
		}
	}
	return KeyValue{keyHead, f.end(f.begin(nil))}
}

// delete deletes what a round has made superfluous. What it cannot delete is deleted by the next round.
func (j *journal) delete(ctx context.Context, r *round, deletes []string) error {
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
