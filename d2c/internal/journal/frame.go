// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/internal/table"
)

// Everything in storage is a frame: a header, and sections that can be read even where others are damaged.
//
//	header   version 1, kind 1, shard 1, parity 1, size 4 (of the whole frame), identity 8, seq 8, index 4, count 4,
//	         oldest 8, first 8, floor 8, high 8, shards 8, key 16, checksum 8 (XXH3 of the header before it)
//	section  size 4 (of what follows the checksum), checksum 8 (XXH3 of what follows, with shard, seq and size mixed in)
//
// An entry ends with a copy of high and a checksum of it and seq, 8 each: the last entry may be the only one that knows.
//
// The names in the header are those of a manifest. What the other kinds have in its fields, their structs say; fields that a
// kind has no use for are zero. Later versions begin with a version and a header checksum in the same places, so that they can
// be told from damage.
const frameVersion = 1

type frameKind uint8

const (
	frameEntry    frameKind = 'j'
	frameChunk    frameKind = 'c'
	frameManifest frameKind = 'm'
	frameHead     frameKind = 'h'
)

// frame is the header as it is stored. Only the four structs below, one for each kind, know what its fields mean.
type frame struct {
	kind          frameKind
	owner         owner
	shard, parity uint8
	seq           uint64
	index, count  uint32
	oldest, first uint64
	floor, high   int64
	shards        uint64
}

// owner says whose state a frame is.
type owner struct {
	identity uint64    // of the encoding of identities, their seed and the owner's name
	key      table.Key // of the table: it says the shard of a stream, and is as secret as the storage is
}

// entryFrame is what one commit has changed.
type entryFrame struct {
	owner  owner
	seq    uint64 // its number
	opened uint32 // how often the journal had been opened
	// before is the header checksum of the entry before, 0 if that is not known: what an earlier journal has left is no
	// continuation.
	before  uint64
	content uint64 // of all sections, so that the header checksum depends on them
	high    int64  // the latest time given out by any stream
	shards  uint64 // a bit for each that there is a section of
}

func (f *entryFrame) end(b []byte) []byte {
	h := frame{
		kind: frameEntry, owner: f.owner, seq: f.seq, count: f.opened, first: f.before, floor: int64(f.content),
		high: f.high, shards: f.shards,
	}
	return h.end(b)
}

// section appends what w has as the section of a shard. Sections come in the order of their shards.
func (f *entryFrame) section(b []byte, shard int, w *table.RecordWriter) []byte {
	b, checksum := appendSection(b, f.seq, shard, w)
	f.shards |= 1 << shard
	f.content = bits.RotateLeft64(f.content, 1) ^ checksum
	return b
}

// readEntry reads the header of the entry seq, and returns its sections. If the header can be read but the rest is not all
// there, f has it all the same; f.seq is 0 otherwise.
func readEntry(b []byte, o owner, seq uint64) (f entryFrame, sections []byte, err error) {
	h, sections, err := readFrame(b, frame{kind: frameEntry, owner: o, seq: seq})
	if h.kind == frameEntry {
		f = entryFrame{
			owner: h.owner, seq: h.seq, opened: h.count, before: h.first, content: uint64(h.floor), high: h.high, shards: h.shards,
		}
	}
	return f, sections, err
}

// chunkFrame is a part of a shard's checkpoint. It has one section.
type chunkFrame struct {
	owner         owner
	seq           uint64 // the latest entry in the checkpoint
	shard, parity uint8
	place         uint32 // among the chunks of the checkpoint
}

func (f *chunkFrame) frame() frame {
	return frame{
		kind: frameChunk, owner: f.owner, seq: f.seq, shard: f.shard, parity: f.parity, index: f.place, shards: 1 << f.shard,
	}
}

// append appends the whole chunk to b.
func (f *chunkFrame) append(b []byte, w *table.RecordWriter) []byte {
	from := len(b)
	b, _ = appendSection(beginFrame(b), f.seq, int(f.shard), w)
	h := f.frame()
	h.end(b[from:])
	return b
}

// readChunk returns the section of the chunk that is to be want.
func readChunk(b []byte, want chunkFrame) (section []byte, err error) {
	_, sections, err := readFrame(b, want.frame())
	if err != nil {
		return nil, err
	}
	if section, _ = nextSection(sections, want.seq, int(want.shard)); section == nil {
		return nil, errDamaged
	}
	return section, nil
}

// manifestFrame says which chunks are a shard's checkpoint. It has no sections.
type manifestFrame struct {
	owner         owner
	seq           uint64 // the latest entry in the checkpoint
	shard, parity uint8  // parity is that of the chunks
	chunks        uint32 // their number
	left          uint32 // the number of chunks that may be left under either parity
	oldest        uint64 // first of the head before
	first         uint64 // what the next head says
	floor         int64  // of the shard
	high          int64
}

func (f *manifestFrame) value() []byte {
	h := frame{
		kind: frameManifest, owner: f.owner, seq: f.seq, shard: f.shard, parity: f.parity, count: f.chunks, index: f.left,
		oldest: f.oldest, first: f.first, floor: f.floor, high: f.high,
	}
	return h.end(beginFrame(nil))
}

func readManifest(b []byte, o owner, shard int) (manifestFrame, error) {
	h, _, err := readFrame(b, frame{kind: frameManifest, owner: o, shard: uint8(shard)})
	return manifestFrame{
		owner: h.owner, seq: h.seq, shard: h.shard, parity: h.parity & 1, chunks: h.count, left: h.index,
		oldest: h.oldest, first: h.first, floor: h.floor, high: h.high,
	}, err
}

// headFrame says where the journal begins. It has no sections.
type headFrame struct {
	owner     owner
	last      uint64 // the latest entry there was when the head was written
	opened    uint32 // how often the journal had been opened by then
	oldest    uint64 // the oldest entry that may still be there
	first     uint64 // the first entry that is still needed
	high      int64
	manifests uint64 // a bit for each shard that has one
}

func (f *headFrame) value() []byte {
	h := frame{
		kind: frameHead, owner: f.owner, seq: f.last, count: f.opened, oldest: f.oldest, first: f.first, high: f.high,
		shards: f.manifests,
	}
	return h.end(beginFrame(nil))
}

func readHead(b []byte, o owner) (headFrame, error) {
	h, _, err := readFrame(b, frame{kind: frameHead, owner: o})
	return headFrame{
		owner: h.owner, last: h.seq, opened: h.count, oldest: h.oldest, first: h.first, high: h.high, manifests: h.shards,
	}, err
}

const (
	frameHeader   = 96
	frameTrailer  = 16
	sectionHeader = 12
)

var (
	errTorn    = errors.New("torn: shorter than it says")
	errDamaged = errors.New("damaged")
)

// checksumOf returns the header checksum of a complete frame.
func checksumOf(b []byte) uint64 { return binary.LittleEndian.Uint64(b[88:frameHeader]) }

// beginFrame appends room for a header to b; end fills it in.
func beginFrame(b []byte) []byte { return append(b, make([]byte, frameHeader)...) }

// end writes the header of a frame that began at b[0] and has all its sections.
func (f *frame) end(b []byte) []byte {
	h := b[:frameHeader]
	h[0], h[1], h[2], h[3] = frameVersion, byte(f.kind), f.shard, f.parity
	binary.LittleEndian.PutUint32(h[4:], uint32(len(b)))
	binary.LittleEndian.PutUint64(h[8:], f.owner.identity)
	binary.LittleEndian.PutUint64(h[16:], f.seq)
	binary.LittleEndian.PutUint32(h[24:], f.index)
	binary.LittleEndian.PutUint32(h[28:], f.count)
	binary.LittleEndian.PutUint64(h[32:], f.oldest)
	binary.LittleEndian.PutUint64(h[40:], f.first)
	binary.LittleEndian.PutUint64(h[48:], uint64(f.floor))
	binary.LittleEndian.PutUint64(h[56:], uint64(f.high))
	binary.LittleEndian.PutUint64(h[64:], f.shards)
	binary.LittleEndian.PutUint64(h[72:], f.owner.key[0])
	binary.LittleEndian.PutUint64(h[80:], f.owner.key[1])
	binary.LittleEndian.PutUint64(h[88:], xxh3.Hash(h[:88]))
	return b
}

// appendSection appends what w has as the section of a shard, in the frame seq.
func appendSection(b []byte, seq uint64, shard int, w *table.RecordWriter) (_ []byte, checksum uint64) {
	at := len(b)
	b = append(b, make([]byte, sectionHeader)...)
	b = w.Append(b)
	h := b[at:]
	binary.LittleEndian.PutUint32(h, uint32(len(h)-sectionHeader))
	checksum = sectionChecksum(h, seq, shard)
	binary.LittleEndian.PutUint64(h[4:], checksum)
	return b, checksum
}

func sectionChecksum(section []byte, seq uint64, shard int) uint64 {
	return xxh3.HashSeed(section[sectionHeader:], seq*table.ShardCount+uint64(shard)) ^ uint64(binary.LittleEndian.Uint32(section))
}

// trailer appends the copy of high to an entry.
func (f *entryFrame) trailer(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(f.high))
	return binary.LittleEndian.AppendUint64(b, xxh3.HashSeed(b[len(b)-8:], f.seq))
}

// readTrailer returns high of an entry whose header is damaged.
func readTrailer(b []byte, seq uint64) (high int64, ok bool) {
	if len(b) < frameHeader+frameTrailer {
		return 0, false
	}
	t := b[len(b)-frameTrailer:]
	if binary.LittleEndian.Uint64(t[8:]) != xxh3.HashSeed(t[:8], seq) {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(t)), true
}

// readFrame reads the header of what is meant to be want, as far as its place in storage tells. It returns the sections, to
// be read with nextSection.
func readFrame(b []byte, want frame) (f frame, sections []byte, err error) {
	if len(b) < frameHeader {
		return f, nil, errTorn
	}
	h := b[:frameHeader]
	switch checked := binary.LittleEndian.Uint64(h[88:]) == xxh3.Hash(h[:88]); {
	case checked && h[0] > frameVersion:
		return f, nil, fmt.Errorf("%w: format version %d, known is %d", table.ErrVersion, h[0], frameVersion)
	case !checked || h[0] != frameVersion:
		return f, nil, errDamaged
	}
	f = frame{
		kind: frameKind(h[1]), shard: h[2], parity: h[3],
		owner: owner{binary.LittleEndian.Uint64(h[8:]), table.Key{binary.LittleEndian.Uint64(h[72:]), binary.LittleEndian.Uint64(h[80:])}},
		seq:   binary.LittleEndian.Uint64(h[16:]),
		index: binary.LittleEndian.Uint32(h[24:]), count: binary.LittleEndian.Uint32(h[28:]),
		oldest: binary.LittleEndian.Uint64(h[32:]), first: binary.LittleEndian.Uint64(h[40:]),
		floor: int64(binary.LittleEndian.Uint64(h[48:])), high: int64(binary.LittleEndian.Uint64(h[56:])),
		shards: binary.LittleEndian.Uint64(h[64:]),
	}
	if f.owner.identity != want.owner.identity {
		return f, nil, table.ErrOwner
	}
	if key := want.owner.key; key != (table.Key{}) && key != f.owner.key {
		return frame{}, nil, errDamaged
	}
	switch {
	case f.kind != want.kind || f.shard != want.shard,
		f.kind == frameEntry && f.seq != want.seq,
		f.kind == frameChunk && (f.seq != want.seq || f.parity != want.parity || f.index != want.index):
		return frame{}, nil, errDamaged // it says nothing about what should be here
	case (f.kind == frameHead || f.kind == frameManifest) && (f.oldest < 1 || f.first < f.oldest || f.seq < f.first-1):
		return frame{}, nil, errDamaged // nobody writes that
	}
	switch size := binary.LittleEndian.Uint32(h[4:]); {
	case uint64(size) > uint64(len(b)):
		return f, nil, errTorn
	case int(size) != len(b):
		return f, nil, errDamaged
	}
	return f, b[frameHeader:], nil
}

// nextSection takes the section of a shard off b. If it is damaged, section is nil and rest is where the next one begins if
// its size can be believed, which only that one's checksum can tell.
func nextSection(b []byte, seq uint64, shard int) (section, rest []byte) {
	if len(b) < sectionHeader {
		return nil, nil
	}
	size := uint64(binary.LittleEndian.Uint32(b))
	if size > uint64(len(b)-sectionHeader) {
		return nil, nil
	}
	whole, rest := b[:sectionHeader+size], b[sectionHeader+size:]
	if binary.LittleEndian.Uint64(b[4:]) != sectionChecksum(whole, seq, shard) {
		return nil, rest
	}
	return whole[sectionHeader:], rest
}
