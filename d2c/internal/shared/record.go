// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// A record as it is stored for others, version 2: the version 1, who it belongs to 8, a single record (see table), and a checksum of
// all that, 8: XXH3, seeded with the record's tag and its stream. Later versions hold version and checksum in the same places, and
// seed it alike, so that they can be told from damage.
//
// Version 1 is read, and not written any more. It had a section with one record, and a checksum that was seeded with the tag alone.
const (
	version1     = 1
	version      = 2
	headerSize   = 1 + 8
	checksumSize = 8
)

// The reasons why a record cannot be used. The first two leave it as it is.
var (
	ErrVersion = table.ErrVersion
	ErrOwner   = table.ErrOwner
	errDamaged = errors.New("damaged")
)

// codec writes and reads records of one owner.
type codec struct {
	identity uint64
	writer   table.RecordWriter
}

// seed is that of a checksum: a record is worth nothing under another tag, or of another stream.
func seed(tag uint64, id streamid.ID) uint64 { return tag ^ id.Hi ^ bits.RotateLeft64(id.Lo, 32) }

// append appends the record of the stream in the slot with a number. epoch is the Unix time of the clock of Seen.
func (c *codec) append(b []byte, sh *table.Shard, number int, tag uint64, epoch int64) []byte {
	from := len(b)
	b = append(b, version)
	b = binary.LittleEndian.AppendUint64(b, c.identity)
	b = c.writer.AppendSingle(b, sh, number, epoch)
	return binary.LittleEndian.AppendUint64(b, xxh3.HashSeed(b[from:], seed(tag, sh.Slot(number).ID)))
}

// read reads a record.
func (c *codec) read(b []byte, tag uint64, id streamid.ID, rec *table.Record) error {
	if len(b) < headerSize+checksumSize || tag == 0 {
		return errDamaged
	}
	body := b[:len(b)-checksumSize]
	with := seed(tag, id)
	if b[0] == version1 {
		with = tag
	}
	if binary.LittleEndian.Uint64(b[len(body):]) != xxh3.HashSeed(body, with) {
		return errDamaged
	}
	switch {
	case b[0] > version:
		return fmt.Errorf("%w: format version %d, known is %d", ErrVersion, b[0], version)
	case b[0] < version1:
		return errDamaged
	case binary.LittleEndian.Uint64(b[1:]) != c.identity:
		return ErrOwner
	case b[0] == version1:
		r := table.ReadSection(body[headerSize:])
		if !r.Next(rec) || len(r.Rest) > 0 || rec.ID != id {
			return errDamaged
		}
	case table.ReadSingle(body[headerSize:], id, rec) != nil:
		return errDamaged
	}
	return nil
}

// Read reads a record, as it is stored under a tag, of a stream.
func (k *Keeper) Read(b []byte, tag uint64, id streamid.ID, rec *table.Record) error {
	return k.codec.read(b, tag, id, rec)
}
