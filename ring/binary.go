// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"
)

const (
	magic   = "ring"
	version = 1

	headerSize   = len(magic) + 1 + 1 + 4 + 4 // magic, version, bits, balance, number of members
	memberSize   = 2 + 2 + 4                  // lengths of name and zone, weight
	checksumSize = 8
)

var (
	// ErrVersion is returned by UnmarshalBinary for a ring written by a later version of this package.
	ErrVersion = errors.New("ring: written by a later version")
	// ErrDamaged is returned by UnmarshalBinary for data that is not a complete ring as written by AppendBinary.
	ErrDamaged = errors.New("ring: not a ring, or damaged")
)

// AppendBinary appends the binary form of the ring to b: about 2 bytes per slot. The error is always nil. The form is the
// same on every architecture and later versions of this package will read it. Equal rings have equal forms.
//
// The form is, with numbers in little-endian order: "ring", the version 1 as a byte, log2 of the number of slots as a byte,
// the balance in millionths (4 bytes), the number of members (4); for each member by name the length of the name (2), the
// length of the zone (2), the weight (4), name, zone; for each slot the index of its owner (2); and the epoch (8), which is
// the XXH3-64 of everything before it.
func (r *Ring) AppendBinary(b []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint64(r.appendBody(b), r.epoch), nil
}

// appendBody appends all but the epoch.
func (r *Ring) appendBody(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, magic...)
	b = append(b, version, r.bits)
	b = le.AppendUint32(b, r.balance)
	b = le.AppendUint32(b, uint32(len(r.members)))
	for _, m := range r.members {
		b = le.AppendUint16(b, uint16(len(m.Name)))
		b = le.AppendUint16(b, uint16(len(m.Zone)))
		b = le.AppendUint32(b, m.Weight)
		b = append(b, m.Name...)
		b = append(b, m.Zone...)
	}
	for _, o := range r.owners {
		b = le.AppendUint16(b, o)
	}
	return b
}

// seal computes the epoch.
func (r *Ring) seal() {
	size := headerSize + 2*len(r.owners)
	for _, m := range r.members {
		size += memberSize + len(m.Name) + len(m.Zone)
	}
	r.epoch = xxh3.Hash(r.appendBody(make([]byte, 0, size)))
}

// UnmarshalBinary restores a ring written by AppendBinary. Do not use it on a ring that is already in use. The error is an
// ErrVersion or ErrDamaged, and leaves r unchanged. Data is not kept.
func (r *Ring) UnmarshalBinary(data []byte) error {
	switch {
	case len(data) <= len(magic) || string(data[:len(magic)]) != magic:
		return fmt.Errorf("%w: does not begin with %q", ErrDamaged, magic)
	case data[len(magic)] > version:
		return fmt.Errorf("%w: version %d, this one reads up to %d", ErrVersion, data[len(magic)], version)
	case data[len(magic)] == 0:
		return fmt.Errorf("%w: version 0", ErrDamaged)
	case len(data) < headerSize+checksumSize:
		return fmt.Errorf("%w: %d bytes are too short", ErrDamaged, len(data))
	}
	le := binary.LittleEndian
	body := data[:len(data)-checksumSize]
	epoch := le.Uint64(data[len(body):])
	if xxh3.Hash(body) != epoch {
		return fmt.Errorf("%w: checksum of %d bytes is wrong", ErrDamaged, len(data))
	}
	// From here on it is as it was written, or written by something else than this package.
	c := config{bits: body[5], balance: le.Uint32(body[6:])}
	count := int64(le.Uint32(body[10:]))
	if c.bits < minBits || c.bits > maxBits || c.balance > million {
		return fmt.Errorf("%w: 2^%d slots, balance %d/%d", ErrDamaged, c.bits, c.balance, million)
	}
	rest := body[headerSize:]
	table := int64(2 * c.slots())
	if count > maxMembers || int64(len(rest)) < table+count*int64(memberSize) {
		return fmt.Errorf("%w: %d bytes for %d members and %d slots", ErrDamaged, len(data), count, c.slots())
	}
	members := make([]Member, count)
	for i := range members {
		if len(rest) < memberSize {
			return fmt.Errorf("%w: ends within member %d", ErrDamaged, i+1)
		}
		name, zone := int(le.Uint16(rest)), int(le.Uint16(rest[2:]))
		members[i].Weight = le.Uint32(rest[4:])
		rest = rest[memberSize:]
		if len(rest) < name+zone {
			return fmt.Errorf("%w: ends within member %d", ErrDamaged, i+1)
		}
		members[i].Name, members[i].Zone = string(rest[:name]), string(rest[name:name+zone])
		rest = rest[name+zone:]
		if i > 0 && members[i-1].Name >= members[i].Name {
			return fmt.Errorf("%w: member %.40q is out of order", ErrDamaged, members[i].Name)
		}
	}
	if _, err := sorted(members, c.slots()); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if int64(len(rest)) != table {
		return fmt.Errorf("%w: %d bytes for %d slots", ErrDamaged, len(rest), c.slots())
	}
	owners := make([]uint16, c.slots())
	for i := range owners {
		owners[i] = le.Uint16(rest[2*i:])
		if int(owners[i]) >= len(members) || members[owners[i]].Weight == 0 {
			return fmt.Errorf("%w: slot %d belongs to none of the members", ErrDamaged, i)
		}
	}
	*r = *prepare(c, members)
	r.owners, r.epoch = owners, epoch
	return nil
}
