// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// ID is the 128-bit identity of a stream, made of 64 uniformly distributed bits in each half; either half alone is a
// good shard or routing key. IDs are comparable and fit for map keys. The zero ID belongs to no stream in particular.
type ID struct{ Hi, Lo uint64 }

// idSize is the length of the binary form in bytes; the text form has two digits per byte.
const idSize = 16

// String returns 32 lower-case hexadecimal digits, Hi first. Sorting by text, by binary form and by (Hi, Lo) agree.
func (id ID) String() string {
	text := id.text()
	return string(text[:])
}

// Parse is the inverse of String. It takes exactly 32 hexadecimal digits, of either case.
func Parse(s string) (ID, error) {
	var raw [idSize]byte
	if len(s) != hex.EncodedLen(idSize) {
		// Not quoted: who knows how long it is.
		return ID{}, fmt.Errorf("streamid: id: want %d hexadecimal digits, got %d bytes", hex.EncodedLen(idSize), len(s))
	}
	if _, err := hex.Decode(raw[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("streamid: id %q: %w", s, err)
	}
	return fromBinary(raw[:]), nil
}

// AppendBinary appends the 16-byte big-endian form, Hi first, to dst. It implements [encoding.BinaryAppender]; the error
// is always nil.
func (id ID) AppendBinary(dst []byte) ([]byte, error) {
	dst = binary.BigEndian.AppendUint64(dst, id.Hi)
	return binary.BigEndian.AppendUint64(dst, id.Lo), nil
}

// MarshalBinary implements [encoding.BinaryMarshaler]; the error is always nil.
func (id ID) MarshalBinary() ([]byte, error) { return id.AppendBinary(make([]byte, 0, idSize)) }

// UnmarshalBinary is the inverse of AppendBinary. It takes exactly 16 bytes; after an error id is unchanged.
func (id *ID) UnmarshalBinary(data []byte) error {
	if len(data) != idSize {
		return fmt.Errorf("streamid: id: want %d bytes, got %d", idSize, len(data))
	}
	*id = fromBinary(data)
	return nil
}

// MarshalText implements [encoding.TextMarshaler] with the form of String; the error is always nil.
func (id ID) MarshalText() ([]byte, error) {
	text := id.text()
	return text[:], nil
}

// UnmarshalText implements [encoding.TextUnmarshaler] as Parse does; after an error id is unchanged.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

func (id ID) text() (text [2 * idSize]byte) {
	var raw [idSize]byte
	binary.BigEndian.PutUint64(raw[:8], id.Hi)
	binary.BigEndian.PutUint64(raw[8:], id.Lo)
	hex.Encode(text[:], raw[:])
	return text
}

func fromBinary(raw []byte) ID {
	return ID{Hi: binary.BigEndian.Uint64(raw[:8]), Lo: binary.BigEndian.Uint64(raw[8:])}
}
