// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// A record as it is stored for others, version 1: the version 1, 8 bytes that say who it belongs to, a section with one record,
// and the XXH3 checksum of all that, seeded with the record's tag, 8. Later versions hold version and checksum in the same
// places, so that they can be told from damage.
const (
	version      = 1
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

// append appends the record of the stream in the slot with a number. epoch is the Unix time of the clock of Seen.
func (c *codec) append(b []byte, sh *table.Shard, number int, tag uint64, epoch int64) []byte {
	from := len(b)
	b = append(b, version)
	b = binary.LittleEndian.AppendUint64(b, c.identity)
	c.writer.Reset()
	c.writer.Add(sh, number, epoch)
	b = c.writer.Append(b)
	return binary.LittleEndian.AppendUint64(b, xxh3.HashSeed(b[from:], tag))
}

// read reads a record.
func (c *codec) read(b []byte, tag uint64, id streamid.ID, rec *table.Record) error {
	if len(b) < headerSize+checksumSize || tag == 0 {
		return errDamaged
	}
	body := b[:len(b)-checksumSize]
	if binary.LittleEndian.Uint64(b[len(body):]) != xxh3.HashSeed(body, tag) {
		return errDamaged
	}
	switch {
	case b[0] > version:
		return fmt.Errorf("%w: format version %d, known is %d", ErrVersion, b[0], version)
	case b[0] != version:
		return errDamaged
	}
	if binary.LittleEndian.Uint64(b[1:]) != c.identity {
		return ErrOwner
	}
	r := table.ReadSection(body[headerSize:])
	if !r.Next(rec) || len(r.Rest) > 0 || rec.ID != id {
		return errDamaged
	}
	return nil
}

// Read reads a record, as it is stored under a tag, of a stream.
func (k *Keeper) Read(b []byte, tag uint64, id streamid.ID, rec *table.Record) error {
	return k.codec.read(b, tag, id, rec)
}
