// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/deltaring/deltaring/d2c/store/log"
)

// The parameters of the statements that append.
const (
	paramName = iota
	paramLog
	paramNumber
	paramID
	paramNext
	paramFirst
	paramSize
	paramEntries
	params
)

// batch is appends as parameters, written in the form in which they are sent: a library would have to be given arrays for that.
type batch struct {
	values  [params][]byte
	formats [params]int16
	n       int
}

func newBatch(name string) batch {
	b := batch{}
	b.values[paramName] = []byte(name)
	for i := range b.formats {
		b.formats[i] = pgtype.BinaryFormatCode
	}
	b.begin()
	return b
}

// The types of the parameters that are arrays; zero are others.
var elements = [params]uint32{
	paramLog: pgtype.Int4OID, paramNumber: pgtype.Int8OID, paramID: pgtype.Int8OID, paramNext: pgtype.Int8OID,
	paramFirst: pgtype.Int4OID, paramSize: pgtype.Int4OID,
}

const arrayHeader = 20 // dimensions, whether it has nulls, element type; length and first index of the one dimension

func (b *batch) begin() {
	b.n = 0
	b.values[paramEntries] = b.values[paramEntries][:0]
	for i, oid := range elements {
		if oid != 0 {
			v := binary.BigEndian.AppendUint32(b.values[i][:0], 1)
			v = binary.BigEndian.AppendUint32(v, 0)
			v = binary.BigEndian.AppendUint32(v, oid)
			v = binary.BigEndian.AppendUint32(v, 0) // see end
			b.values[i] = binary.BigEndian.AppendUint32(v, 1)
		}
	}
}

func (b *batch) add(a log.Append) {
	b.n++
	b.int4(paramLog, uint32(a.Log))
	b.int8(paramNumber, a.After.Number)
	b.int8(paramID, a.After.ID)
	b.int8(paramNext, a.ID)
	b.int4(paramFirst, uint32(len(b.values[paramEntries])+1))
	b.int4(paramSize, uint32(len(a.Entry)))
	b.values[paramEntries] = append(b.values[paramEntries], a.Entry...)
}

func (b *batch) int4(param int, v uint32) {
	b.values[param] = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b.values[param], 4), v)
}

func (b *batch) int8(param int, v uint64) {
	b.values[param] = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b.values[param], 8), v)
}

// end says how many there are.
func (b *batch) end() {
	for i, oid := range elements {
		if oid != 0 {
			binary.BigEndian.PutUint32(b.values[i][arrayHeader-8:], uint32(b.n))
		}
	}
	if b.values[paramEntries] == nil {
		b.values[paramEntries] = []byte{} // nil is NULL
	}
}

// trim gives back what only a very large batch needed.
func (b *batch) trim() {
	if cap(b.values[paramEntries]) > keptBytes {
		b.values[paramEntries] = nil
	}
}
