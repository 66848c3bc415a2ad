// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/d2c/store"
)

// Config says where a Journal is kept.
type Config struct {
	Storage store.Storage
	// Identity tells one owner's state from another's.
	Identity uint64
	// Size is the length in bytes below which the journal is never cut.
	Size int64
	// Progress, if not nil, is told now and then what has been restored so far.
	Progress func(Recovery)
	// Trouble, if not nil, is told when checkpoints begin to fail, and nil when they work again.
	Trouble func(error)
}

// Recovery says what Open has found.
type Recovery struct {
	// Streams is the number of streams restored.
	Streams int
	// Entries and Bytes are the number of journal entries replayed and the size of all that was read.
	Entries int
	Bytes   int64
	// Torn is set if the last entry was cut short: its commit had not ended, so nobody was told of it.
	Torn bool
	// Damaged has what could not be read. The value of each key is kept under another.
	Damaged []Damage
	// Forgotten is the number of streams that were read but may have changed in what could not be. They begin anew under a
	// start that is not before the latest time given out, as do those that are only in what could not be read.
	Forgotten int
	// Expired is the number of streams that had been idle for longer than MaxStale when the state was last written.
	Expired int
}

// Damage is a value that could not be read.
type Damage struct {
	Key string
	// Aside is the key under which the value is kept from now on, empty if there is no value where there should be one.
	Aside string
	Err   error
}

// Open brings back the state of p, whose table is empty, and returns its Journal.
func Open(ctx context.Context, p *commit.Pipeline, cfg Config) (*Journal, Recovery, error) {
	j := &Journal{
		p: p, storage: cfg.Storage, owner: owner{identity: cfg.Identity}, trouble: cfg.Trouble, minimum: cfg.Size, wake: make(chan struct{}, 1),
	}
	r := recovery{p: p, journal: j, progress: cfg.Progress}
	if err := r.run(ctx); err != nil {
		return nil, Recovery{}, fmt.Errorf("d2c: restoring state: %w", err)
	}
	j.start()
	j.signal() // there may be something to do already
	return j, r.Recovery, nil
}

// entriesAtOnce and chunksAtOnce bound what a recovery reads at once.
const (
	entriesAtOnce = 16
	chunksAtOnce  = 16

	// maxHole is how many entries in a row may be missing without those behind them being missed too. To look past that many
	// takes 64 reads of keys that are not there, once per recovery.
	maxHole = 1024

	// maxLostChunks bounds the chunks to be deleted where a manifest is lost: those of a shard in 25 million streams.
	maxLostChunks = 64
)

// recovery brings the state back: see the package comment.
type recovery struct {
	Recovery
	p        *commit.Pipeline
	journal  *Journal
	progress func(Recovery)

	record    table.Record
	suspects  [table.ShardCount]slotSet // streams, by slot, that a lost entry may have changed
	wounded   uint64                    // shards of which something is lost
	newest    uint32                    // latest time a stream was seen
	first     uint64
	manifests uint64 // shards that must have one
	opened    uint32 // how often the journal had been opened when the latest entry was written
	// ahead is the first entry there is behind the one at hand, seq 0 if there is none, and how far was looked for it.
	ahead struct {
		looked, seq uint64
		value       []byte
	}
	counted  uint64 // the latest entry when the head was written: none after it is of an earlier opening
	headRead bool
	headLost bool
	deleted  uint64   // if headLost, entries before this one may be missing because they are no longer needed
	highLost bool     // the latest time given out is in an entry that is lost
	asides   [][]byte // the values that are damaged, by place in Damaged

	// What there is behind the end of the journal.
	damagedBehind, readBehind []string
}

func (r *recovery) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{r.head, r.checkpoints, r.entries} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	r.finish()
	// Nothing has been written until here.
	if err := r.setAside(ctx); err != nil {
		return err
	}
	// After a crash in between, what is left must still be known for what it is: that needs one that can be read.
	for _, deletes := range [][]string{r.damagedBehind, append(r.readBehind, r.leftovers()...)} {
		if len(deletes) == 0 {
			continue
		}
		if err := r.journal.storage.Put(ctx, nil, deletes); err != nil {
			return fmt.Errorf("%d keys from %s on: %w", len(deletes), deletes[0], err)
		}
	}
	if r.wounded != 0 || r.headLost {
		// What is damaged must be out of the way before anything is added. Without the head nobody knows which of the entries
		// that are missing were deleted: a journal that begins anew misses none.
		var shards []int
		for i := range table.ShardCount {
			if r.wounded>>i&1 != 0 || r.headLost {
				shards = append(shards, i)
			}
		}
		if err := r.journal.Checkpoint(ctx, shards); err != nil {
			return err
		}
	}
	return nil
}

// leftovers returns the keys that a crash may have left behind. Those of wounded shards are seen to by their checkpoints.
func (r *recovery) leftovers() (keys []string) {
	j := r.journal
	for seq := j.oldest; seq < j.first; seq++ {
		keys = append(keys, KeyEntry(seq))
	}
	j.oldest, j.headed = j.first, j.first
	for i := range j.shards {
		s := &j.shards[i]
		if !s.stored || r.wounded>>i&1 != 0 {
			continue
		}
		// A round that did not end may have left more chunks than the manifest knows of, though hardly more than twice as many.
		for n := range 2*max(s.left[0], s.left[1]) + 8 {
			keys = append(keys, KeyChunk(i, s.parity^1, n))
			if n >= s.chunks {
				keys = append(keys, KeyChunk(i, s.parity, n))
			}
		}
		s.left[s.parity], s.left[s.parity^1] = s.chunks, 0
	}
	return keys
}

// belongs notes the key of the table, which the first frame that can be read tells.
func (r *recovery) belongs(o owner) {
	if r.journal.owner.key == (table.Key{}) {
		r.journal.owner.key = o.key
		r.p.Table.Rekey(o.key)
	}
}

func (r *recovery) get(ctx context.Context, keys ...string) ([][]byte, error) {
	values, err := r.journal.storage.Get(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", keys[0], err)
	}
	if len(values) != len(keys) {
		return nil, fmt.Errorf("key %s: storage returned %d values for %d keys", keys[0], len(values), len(keys))
	}
	for _, v := range values {
		r.Bytes += int64(len(v))
	}
	return values, nil
}

// damaged notes what could not be read, unless err says that there is nothing wrong with it.
func (r *recovery) damaged(key string, value []byte, err error) error {
	if errors.Is(err, table.ErrVersion) || errors.Is(err, table.ErrOwner) {
		return fmt.Errorf("key %s: %w", key, err)
	}
	r.Damaged = append(r.Damaged, Damage{Key: key, Err: err})
	r.asides = append(r.asides, value)
	return nil
}

// setAside keeps what could not be read under keys of their own.
func (r *recovery) setAside(ctx context.Context) error {
	for i, value := range r.asides {
		if value == nil {
			continue
		}
		d := &r.Damaged[i]
		for n := 1; d.Aside == ""; n++ {
			key := KeyAside(d.Key, n)
			there, err := r.get(ctx, key)
			if err != nil {
				return err
			}
			if there[0] == nil {
				d.Aside = key
			}
		}
		if err := r.journal.storage.Put(ctx, []store.KeyValue{{Key: d.Aside, Value: value}}, nil); err != nil {
			return fmt.Errorf("key %s, set aside: %w", d.Key, err)
		}
	}
	r.asides = nil
	return nil
}

func (r *recovery) tell() {
	if r.progress != nil {
		p := r.Recovery
		p.Streams = r.streams()
		r.progress(p)
	}
}

func (r *recovery) streams() int {
	n := 0
	for i := range r.p.Table.Shards {
		n += r.p.Table.Shards[i].N
	}
	return n
}

// head finds out where the journal begins.
func (r *recovery) head(ctx context.Context) error {
	r.first, r.journal.oldest = 1, 1
	values, err := r.get(ctx, KeyHead)
	if err != nil || values[0] == nil {
		return err
	}
	f, err := readHead(values[0], r.journal.owner)
	if err != nil {
		r.headLost = true
		return r.damaged(KeyHead, values[0], err)
	}
	r.belongs(f.owner)
	r.first, r.journal.oldest = f.first, f.oldest
	r.journal.high, r.journal.opened = f.high, f.opened
	r.manifests = f.manifests
	r.counted, r.headRead = f.last, true
	return nil
}

// checkpoints loads the checkpoints of all shards.
func (r *recovery) checkpoints(ctx context.Context) error {
	keys := make([]string, table.ShardCount)
	for i := range keys {
		keys[i] = KeyManifest(i)
	}
	manifests, err := r.get(ctx, keys...)
	if err != nil {
		return err
	}
	oldest, deleted := uint64(1), uint64(1) // of the journal's entries, as far as manifests tell
	for i, value := range manifests {
		if value == nil && r.manifests>>i&1 == 0 {
			// A first round that did not end may have left chunks.
			r.journal.shards[i].left[1] = 8
			continue
		}
		f, err := readManifest(value, r.journal.owner, i)
		if value == nil {
			err = errMissing
		}
		if err != nil {
			r.wounded |= 1 << i
			// How many chunks there are is not known; this is more than there could be.
			r.journal.shards[i].left = [2]uint32{maxLostChunks, maxLostChunks}
			if err := r.damaged(keys[i], value, err); err != nil {
				return err
			}
			continue
		}
		r.belongs(f.owner)
		oldest, deleted = max(oldest, f.oldest), max(deleted, f.first)
		if err := r.shard(ctx, i, &f); err != nil {
			return err
		}
		r.tell()
	}
	// The head is stored whenever the journal is cut.
	if !r.headRead && !r.headLost && oldest > 1 {
		r.headLost = true
		if err := r.damaged(KeyHead, nil, errMissing); err != nil {
			return err
		}
	}
	if r.headLost {
		r.first, r.journal.oldest, r.deleted = oldest, oldest, deleted
	}
	return nil
}

// shard loads the checkpoint of one shard.
func (r *recovery) shard(ctx context.Context, i int, manifest *manifestFrame) error {
	s := &r.journal.shards[i]
	*s = checkpointed{
		seq: manifest.seq, changed: manifest.seq, stored: true, parity: manifest.parity, chunks: manifest.chunks,
	}
	s.left[s.parity], s.left[s.parity^1] = max(s.chunks, manifest.left), manifest.left
	r.p.Table.Shards[i].Floor = manifest.floor
	r.journal.high = max(r.journal.high, manifest.high)
	for from := uint32(0); from < s.chunks; from += chunksAtOnce {
		var keys []string
		for n := from; n < min(from+chunksAtOnce, s.chunks); n++ {
			keys = append(keys, KeyChunk(i, s.parity, n))
		}
		values, err := r.get(ctx, keys...)
		if err != nil {
			return err
		}
		for n, value := range values {
			s.bytes += int64(len(value))
			want := chunkFrame{
				owner: r.journal.owner, seq: s.seq, shard: uint8(i), parity: s.parity, place: from + uint32(n),
			}
			if err := r.chunk(value, want); err != nil {
				// Entries may still have what the chunk had.
				r.wounded |= 1 << i
				if err := r.damaged(keys[n], value, err); err != nil {
					return err
				}
			}
		}
	}
	if r.wounded>>i&1 != 0 {
		s.seq, s.bytes = 0, 0
		return nil
	}
	s.streams = r.p.Table.Shards[i].N
	r.journal.stored += s.bytes
	return nil
}

// slotSet is a set of slots, by number.
type slotSet []uint64

// setAll adds the numbers below n.
func (b *slotSet) setAll(n int) {
	*b = slices.Grow((*b)[:0], (n+63)/64)[:(n+63)/64]
	for i := range *b {
		(*b)[i] = math.MaxUint64
	}
}

func (b slotSet) clear(n int) {
	if n/64 < len(b) {
		b[n/64] &^= 1 << (n % 64)
	}
}

func (b slotSet) has(n int) bool { return n/64 < len(b) && b[n/64]>>(n%64)&1 != 0 }

var errMissing = errors.New("missing")

func (r *recovery) chunk(value []byte, want chunkFrame) error {
	if value == nil {
		return errMissing
	}
	section, err := readChunk(value, want)
	if err != nil {
		return err
	}
	return r.load(int(want.shard), section)
}

// load puts the records of a section into the table.
func (r *recovery) load(shard int, section []byte) error {
	sh := &r.p.Table.Shards[shard]
	reader := table.ReadSection(section)
	for reader.Next(&r.record) {
		if r.record.Role != table.RoleStream {
			r.p.Table.Aggregate() // whatever the rules of now are, what is stored stays as it is
		}
		if r.p.Table.ShardOf(r.record.Home()) != shard {
			return fmt.Errorf("%w: stream %v is not of this shard", errDamaged, r.record.ID)
		}
		if n := sh.Put(&r.record); n >= 0 {
			r.suspects[shard].clear(n)
		}
		r.newest = max(r.newest, r.record.Seen)
	}
	return reader.Err
}

// entries replays the journal.
func (r *recovery) entries(ctx context.Context) error {
	j := r.journal
	// known is up to where there must have been entries.
	known := r.first - 1
	for i := range j.shards {
		known = max(known, j.shards[i].seq)
	}
	j.first, j.last = r.first, r.first-1
	for seq := r.first; ; seq += entriesAtOnce {
		keys, values, err := r.window(ctx, seq)
		if err != nil {
			return err
		}
		for n, value := range values {
			if ended, err := r.entry(ctx, keys[n], seq+uint64(n), known, value); err != nil {
				return err
			} else if ended && value == nil && r.ahead.seq == 0 {
				return nil // there is nothing behind
			} else if ended {
				return r.behind(ctx)
			}
		}
		r.tell()
	}
}

// window reads the entries from seq on, as many as are read at once.
func (r *recovery) window(ctx context.Context, seq uint64) (keys []string, values [][]byte, err error) {
	for n := range uint64(entriesAtOnce) {
		keys = append(keys, KeyEntry(seq+n))
	}
	values, err = r.get(ctx, keys...)
	return keys, values, err
}

// ends reports whether the journal ends with the entry seq: there is nothing behind, as far as a hole is looked past, or the
// first thing there is of an earlier journal.
func (r *recovery) ends(ctx context.Context, seq uint64) (bool, error) {
	for r.ahead.seq <= seq && r.ahead.looked < seq+maxHole {
		from := max(r.ahead.looked, seq) + 1
		_, values, err := r.window(ctx, from)
		if err != nil {
			return false, err
		}
		for n, value := range values {
			if r.ahead.looked = from + uint64(n); value != nil {
				r.ahead.seq, r.ahead.value = r.ahead.looked, value
				break
			}
		}
	}
	if r.ahead.seq <= seq {
		r.ahead.seq = 0
		return true, nil
	}
	f, _, err := readEntry(r.ahead.value, r.journal.owner, r.ahead.seq)
	return err == nil && r.remnant(&f), nil
}

// behind sees to what there is behind the end of the journal, so that nobody meets it again: what is damaged there could not
// be told from a damaged entry of this journal later. It looks as far as entries does, or the next recovery would look
// farther than this one has cleared.
func (r *recovery) behind(ctx context.Context) error {
	end := r.journal.last + maxHole + entriesAtOnce
	for seq := r.journal.last + 1; seq <= end; seq += entriesAtOnce {
		keys, values, err := r.window(ctx, seq)
		if err != nil {
			return err
		}
		for n, value := range values {
			if value == nil {
				continue
			}
			at := seq + uint64(n)
			end = at + maxHole + entriesAtOnce
			_, _, err := readEntry(value, r.journal.owner, at)
			if err == nil || r.Torn && at == r.journal.last+1 {
				r.readBehind = append(r.readBehind, keys[n])
				continue
			}
			if err := r.damaged(keys[n], value, err); err != nil {
				return err
			}
			r.damagedBehind = append(r.damagedBehind, keys[n])
		}
	}
	return nil
}

// remnant reports whether an entry is of an earlier journal than the one before it, or than the head.
func (r *recovery) remnant(f *entryFrame) bool {
	return f.opened < r.opened || f.seq > r.counted && f.opened < r.journal.opened
}

// entry replays one entry, or reports that the journal ends before it. An entry that was not written to its end and is the
// last one was never acknowledged: nobody knows of it, and it is cut off.
func (r *recovery) entry(ctx context.Context, key string, seq, known uint64, value []byte) (ended bool, err error) {
	j := r.journal
	var f entryFrame
	var sections []byte
	if value != nil {
		if f, sections, err = readEntry(value, j.owner, seq); err == nil {
			r.belongs(f.owner)
		}
	}
	if seq > known && (value == nil || errors.Is(err, errTorn)) {
		if ended, err := r.ends(ctx, seq); ended || err != nil {
			r.Torn = value != nil && err == nil
			return ended, err
		}
	}
	if value == nil {
		if seq >= r.deleted {
			err = errMissing
			// Entries are deleted only once there is a head.
			r.headLost = r.headLost || !r.headRead && seq <= known
		}
	} else if err == nil && (j.chain != 0 && f.before != j.chain || j.chain == 0 && r.remnant(&f)) {
		// It does not follow on the entry before, or that is lost and it was written before that.
		if seq > known && r.remnant(&f) {
			return true, nil // of an earlier journal that had come farther
		}
		err = errDamaged // it, or the one before, is not what was stored last
	}
	j.last, j.chain, r.opened = seq, 0, max(r.opened, f.opened)
	if err == nil && value != nil {
		j.chain = checksumOf(value)
	}
	j.sizes = append(j.sizes, uint32(len(value)))
	j.bytes += int64(len(value))
	if value != nil || err != nil {
		high, ok := f.high, f.seq == seq
		if !ok { // the header cannot be read
			high, ok = readTrailer(value, seq)
		}
		// The next entry that can be read tells it.
		j.high, r.highLost = max(j.high, high), !ok && seq > known
	}
	if err != nil {
		// It may have changed any stream that no checkpoint has since.
		if r.suspect(seq, math.MaxUint64) {
			return false, r.damaged(key, value, err)
		}
		if errors.Is(err, table.ErrVersion) || errors.Is(err, table.ErrOwner) {
			return false, fmt.Errorf("key %s: %w", key, err)
		}
		return false, nil
	}
	if value != nil {
		r.Entries++
	}
	bad := uint64(0)
	for shard := range table.ShardCount {
		if f.shards>>shard&1 == 0 {
			continue
		}
		var section []byte
		section, sections = nextSection(sections, seq, shard)
		s := &j.shards[shard]
		if seq <= s.seq {
			continue
		}
		s.changed = seq
		if section == nil || r.load(shard, section) != nil {
			bad |= 1 << shard
		}
	}
	if bad != 0 && r.suspect(seq, bad) {
		return false, r.damaged(key, value, errDamaged)
	}
	return false, nil
}

// suspect marks the streams of shards that an entry may have changed, unless a later entry says what has become of them. It
// reports whether there are shards without a later checkpoint among these.
func (r *recovery) suspect(seq, shards uint64) bool {
	any := false
	for i := range r.p.Table.Shards {
		if shards>>i&1 == 0 || seq <= r.journal.shards[i].seq {
			continue
		}
		any = true
		r.wounded |= 1 << i
		sh := &r.p.Table.Shards[i]
		r.suspects[i].setAll(sh.N)
	}
	return any
}

// finish forgets what is suspect or has expired, and sets the clock of the rest.
func (r *recovery) finish() {
	p, j := r.p, r.journal
	r.belongs(owner{key: p.Table.Key()})
	j.opened = max(j.opened, r.opened) + 1
	if r.headLost {
		// The head knew of openings that no entry may be left of. There were not so many.
		j.opened += 1 << 16
	}
	now := p.Clock()
	if r.newest == 0 {
		r.newest = uint32(max(p.Time().Unix(), 0))
	}
	// Records count seconds as if no time had passed since the latest was written: what nobody was here to see is not idle.
	j.epoch = int64(r.newest) - int64(now)
	if r.highLost {
		j.high = max(j.high, p.Time().UnixNano())
	}
	for i := range p.Table.Shards {
		sh := &p.Table.Shards[i]
		if r.headLost && !j.shards[i].stored {
			// Only the head knows whether there was a manifest and, unless entries follow, what was given out last.
			r.wounded |= 1 << i
			if r.Entries == 0 {
				sh.Floor = p.Time().UnixNano()
			}
		}
		if r.wounded>>i&1 != 0 {
			sh.Floor = max(sh.Floor, j.high)
			r.Forgotten += sh.Remove(func(n int, _ *table.Slot) bool { return r.suspects[i].has(n) })
		}
		for n := range sh.N {
			s := sh.Slot(n)
			s.Seen = now - min(now, r.newest-min(s.Seen, r.newest))
		}
		if p.MaxStale > 0 {
			n, writers, free := sh.Expire(now, p.MaxAge(), p.Time().UnixNano())
			p.Forgot(free)
			if n+writers > 0 {
				r.Expired += n
				j.shards[i].shrunk = j.shards[i].streams > 2*sh.N
			}
		}
	}
	r.Streams = r.streams()
	p.Live.Store(int64(r.Streams))
	writers := p.Table.CountWriters()
	p.Writers.Store(int64(writers))
	r.Streams -= writers
}
