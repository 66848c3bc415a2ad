// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import "math/bits"

// sample is the latest sample of a stream: its time in Unix milliseconds, which go on until the year 2527, and some bits of a
// fingerprint of its value. Zero is no sample.
type sample uint64

const fingerprintBits = 20

func newSample(ms uint64, value fingerprint) sample {
	ms = min(ms, 1<<(64-fingerprintBits)-1)
	return sample(ms<<fingerprintBits | uint64(value>>(64-fingerprintBits)) | 1)
}

func (s sample) time() uint64 { return uint64(s >> fingerprintBits) }

// sentTable has the latest sample of each stream, in 17 bytes a slot and at most 34 bytes a stream. It is a hash table with linear
// probing. Keys are spread evenly over 64 bits by whoever makes them, with a seed that nobody outside knows.
type sentTable struct {
	slots   []sentSlot
	seen    []uint8 // of each slot, the round in which its stream came last
	streams int
	round   uint8
}

type sentSlot struct {
	key    uint64 // zero if the slot is free
	sample sample
}

const (
	firstSlots = 64
	// keepRounds is for how many rounds a stream is kept without samples. Rounds are counted in a byte, which is enough to tell
	// them apart, as no stream is kept longer.
	keepRounds = 8
)

// full says when the table grows: four slots of five have a stream.
func (t *sentTable) full() bool { return 5*(t.streams+1) > 4*len(t.slots) }

// find returns the slot of a stream and its sample, or the slot in which it would be and no sample.
func (t *sentTable) find(key uint64) (int, sample) {
	slots := t.slots
	if len(slots) == 0 {
		return 0, 0
	}
	home, _ := bits.Mul64(key, uint64(len(slots)))
	for i := int(home); ; {
		switch s := slots[i]; s.key {
		case key:
			return i, s.sample
		case 0:
			return i, 0
		}
		if i++; i == len(slots) {
			i = 0
		}
	}
}

// insert adds a stream that find has not found.
func (t *sentTable) insert(slot int, key uint64, s sample) {
	if t.full() {
		t.resize(max(firstSlots, len(t.slots)+len(t.slots)/2), func(uint8) bool { return true })
		slot, _ = t.find(key)
	}
	t.slots[slot].key = key
	t.streams++
	t.set(slot, s)
}

func (t *sentTable) set(slot int, s sample) { t.slots[slot].sample, t.seen[slot] = s, t.round }

// resize makes a table of so many slots of those streams that keep wants, by the round in which they came last.
func (t *sentTable) resize(slots int, keep func(seen uint8) bool) {
	old := *t
	*t = sentTable{slots: make([]sentSlot, slots), seen: make([]uint8, slots), round: old.round}
	for i, s := range old.slots {
		if s.key != 0 && keep(old.seen[i]) {
			slot, _ := t.find(s.key)
			t.slots[slot], t.seen[slot] = s, old.seen[i]
			t.streams++
		}
	}
}

// sweep begins another round and forgets streams that had no samples for keepRounds.
func (t *sentTable) sweep() {
	t.round++
	fresh := func(seen uint8) bool { return t.round-seen <= keepRounds }
	live := 0
	for i, s := range t.slots {
		if s.key != 0 && fresh(t.seen[i]) {
			live++
		}
	}
	if live < t.streams {
		// With room for some, or the next stream would have it grow at once.
		t.resize(max(firstSlots, live+live/2), fresh)
	}
}
