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
// What a field means depends on the kind; fields of no meaning are zero. Later versions begin with a version and a header
// checksum in the same places, so that they can be told from damage.
const frameVersion = 1

type frameKind uint8

const (
	// frameEntry is what one commit changed: seq is its number, shards has a bit for each shard that it has a section of, and
	// count is the number of times that the journal has been opened.
	frameEntry frameKind = 'j'
	// frameChunk is a part of a shard's checkpoint: seq is that of the last commit in it, index its place.
	frameChunk frameKind = 'c'
	// frameManifest says which chunks are a shard's checkpoint: seq as there, parity theirs, count their number, and
	// index the number of chunks that may be left under either parity; first is what the next head says, oldest is first of
	// the head before it. It has no sections.
	frameManifest frameKind = 'm'
	// frameHead says where the journal begins, how often it has been opened (count), up to which entry that holds (seq), and
	// which shards have manifests. It has no sections.
	frameHead frameKind = 'h'
)

type frame struct {
	kind   frameKind
	shard  uint8
	parity uint8
	// identity tells whose state this is: the encoding of identities, their seed and the owner's name.
	identity uint64
	seq      uint64
	index    uint32
	count    uint32
	// first is the number of the first entry that is still needed, oldest of the oldest that may still be there. Of an
	// entry, first is the header checksum of the one before it: what an earlier journal has left is no continuation.
	oldest, first uint64
	floor         int64     // of the shard; of an entry, what makes first depend on the content
	high          int64     // the latest time given out by any stream
	key           table.Key // of the table, which says the shard of a stream
	shards        uint64
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

// begin appends the header to b; end completes it.
func (f *frame) begin(b []byte) []byte { return append(b, make([]byte, frameHeader)...) }

// end writes the header of a frame that began at b[0] and has all its sections.
func (f *frame) end(b []byte) []byte {
	h := b[:frameHeader]
	h[0], h[1], h[2], h[3] = frameVersion, byte(f.kind), f.shard, f.parity
	binary.LittleEndian.PutUint32(h[4:], uint32(len(b)))
	binary.LittleEndian.PutUint64(h[8:], f.identity)
	binary.LittleEndian.PutUint64(h[16:], f.seq)
	binary.LittleEndian.PutUint32(h[24:], f.index)
	binary.LittleEndian.PutUint32(h[28:], f.count)
	binary.LittleEndian.PutUint64(h[32:], f.oldest)
	binary.LittleEndian.PutUint64(h[40:], f.first)
	binary.LittleEndian.PutUint64(h[48:], uint64(f.floor))
	binary.LittleEndian.PutUint64(h[56:], uint64(f.high))
	binary.LittleEndian.PutUint64(h[64:], f.shards)
	binary.LittleEndian.PutUint64(h[72:], f.key[0])
	binary.LittleEndian.PutUint64(h[80:], f.key[1])
	binary.LittleEndian.PutUint64(h[88:], xxh3.Hash(h[:88]))
	return b
}

// section appends what w has as the section of a shard. Sections come in the order of their shards.
func (f *frame) section(b []byte, shard int, w *table.RecordWriter) []byte {
	at := len(b)
	b = append(b, make([]byte, sectionHeader)...)
	b = w.Append(b)
	h := b[at:]
	binary.LittleEndian.PutUint32(h, uint32(len(h)-sectionHeader))
	checksum := sectionChecksum(h, f.seq, shard)
	binary.LittleEndian.PutUint64(h[4:], checksum)
	f.shards |= 1 << shard
	if f.kind == frameEntry {
		f.floor = int64(bits.RotateLeft64(uint64(f.floor), 1) ^ checksum)
	}
	return b
}

func sectionChecksum(section []byte, seq uint64, shard int) uint64 {
	return xxh3.HashSeed(section[sectionHeader:], seq*table.ShardCount+uint64(shard)) ^ uint64(binary.LittleEndian.Uint32(section))
}

// trailer appends the copy of high to an entry.
func (f *frame) trailer(b []byte) []byte {
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
		identity: binary.LittleEndian.Uint64(h[8:]), seq: binary.LittleEndian.Uint64(h[16:]),
		index: binary.LittleEndian.Uint32(h[24:]), count: binary.LittleEndian.Uint32(h[28:]),
		oldest: binary.LittleEndian.Uint64(h[32:]), first: binary.LittleEndian.Uint64(h[40:]),
		floor: int64(binary.LittleEndian.Uint64(h[48:])), high: int64(binary.LittleEndian.Uint64(h[56:])),
		shards: binary.LittleEndian.Uint64(h[64:]),
		key:    table.Key{binary.LittleEndian.Uint64(h[72:]), binary.LittleEndian.Uint64(h[80:])},
	}
	if f.identity != want.identity {
		return f, nil, table.ErrOwner
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
