// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"math/rand/v2"
	"testing"
)

func TestClassOf(t *testing.T) {
	last, lastWords := 0, uint32(0)
	for n := 1; n < 1<<18; n++ {
		class, words := classOf(n)
		if int(words) < n || n > 64 && int(words) > n+n/8 {
			t.Fatalf("classOf(%d) has %d words", n, words)
		}
		if class < last || class > last+1 || (class == last) != (words == lastWords) && n > 1 {
			t.Fatalf("classOf(%d) = %d of %d words after %d of %d", n, class, words, last, lastWords)
		}
		last, lastWords = class, words
	}
}

// TestSlabKeepsBlocksApart fills random blocks and checks that nothing else ever writes to them.
func TestSlabKeepsBlocksApart(t *testing.T) {
	type held struct {
		ref  blockRef
		n    int
		mark uint32
	}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var s slab
		var live []held
		for step := range uint32(3000) {
			if len(live) > 0 && rng.IntN(5) < 2 {
				i := rng.IntN(len(live))
				s.release(live[i].ref)
				live[i] = live[len(live)-1]
				live = live[:len(live)-1]
			} else {
				n := 1 + rng.IntN(1<<rng.IntN(14))
				h := held{s.alloc(n), n, step}
				if !s.fits(h.ref, n) {
					t.Fatalf("seed %d: a block of %d words does not fit %d", seed, len(s.block(h.ref)), n)
				}
				for i := range s.block(h.ref) {
					s.block(h.ref)[i] = h.mark
				}
				live = append(live, h)
			}
			if step%100 == 0 {
				for _, h := range live {
					for _, w := range s.block(h.ref) {
						if w != h.mark {
							t.Fatalf("seed %d step %d: block %x holds %d, want %d", seed, step, h.ref, w, h.mark)
						}
					}
				}
			}
		}
		used := int64(0)
		for i := range s.classes {
			for _, chunk := range s.classes[i].chunks {
				used += 4 * int64(cap(chunk))
			}
		}
		if used != s.bytes {
			t.Fatalf("seed %d: accounts for %d bytes, has %d", seed, s.bytes, used)
		}
	}
}

func TestSlabReusesFreedBlocks(t *testing.T) {
	var s slab
	refs := make([]blockRef, 1000)
	for i := range refs {
		refs[i] = s.alloc(30)
	}
	bytes := s.bytes
	for range 10 {
		for _, ref := range refs {
			s.release(ref)
		}
		for i := range refs {
			refs[i] = s.alloc(30)
		}
	}
	if s.bytes != bytes {
		t.Fatalf("grew from %d to %d bytes by releasing and allocating again", bytes, s.bytes)
	}
}
