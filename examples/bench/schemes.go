// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"runtime"
	"slices"
	"strconv"

	"github.com/golang/groupcache/consistenthash"
	"github.com/serialx/hashring"

	"github.com/deltaring/deltaring/ring"
)

// scheme is a way to share keys out among members.
type scheme struct {
	name string
	// slots is how many keys balance and movement are counted over. A scheme with a table has one key for each of its slots,
	// which makes the counts exact; for one that hides where its points are this is 0, and it gets a sample of keys, which
	// adds the noise of sampling.
	slots int
	build func(names []string) (placement, error)
}

// placement is a scheme with its members.
type placement struct {
	// owner returns the name of the owner of key i, of scheme.slots or of the sample.
	owner func(i int) string
	// lookups looks up n random keys, as users of the library do. It is nil for a scheme that is re-expressed here, from
	// its paper or source: that is close to its balance and movement, but says nothing about the original's speed and memory.
	lookups func(n int)
	// next changes the members, where what results depends on what was before. If it is nil, build does.
	next func(names []string) (placement, error)
}

// The schemes' names in tables and JSON that others refer to.
const (
	nameRing      = "ring"
	nameRebalance = "ring, Rebalance"
	nameSampled   = "perfect, but sampled"
)

// schemes are those compared, ours first. The settings of the others are the ones that their documentation or their
// best-known user has, or better.
var schemes = []scheme{
	{nameRing, ringSlots, buildRing},
	{nameRebalance, ringSlots, buildRebalanced},
	{"serialx/hashring, 100 points", 0, buildHashring},
	{"groupcache, 50 points", 0, buildGroupcache},
	{"contrib's ring, 200 points *", contribPositions, buildContribRing},
	{"Maglev, 65537 slots *", maglevSlots, buildMaglev},
	{"bounded ring, load 1.01 *", boundedSlots, buildBounded},
	{nameSampled, 0, buildSampled},
}

const (
	ringSlotBits = 18 // of a ring without options
	ringSlots    = 1 << ringSlotBits
	golden       = 0x9e3779b97f4a7c15 // odd, 2^64 over the golden ratio: its multiples are spread evenly
)

func buildRing(names []string) (placement, error) {
	r, err := ring.New(ring.Equal(names...))
	if err != nil {
		return placement{}, err
	}
	return ringPlacement(r), nil
}

// buildRebalanced is for a fleet with a coordinator, which goes on from the ring before.
func buildRebalanced(names []string) (placement, error) {
	r, err := ring.New(ring.Equal(names...))
	if err != nil {
		return placement{}, err
	}
	return rebalanced(r, names)
}

func rebalanced(prev *ring.Ring, names []string) (placement, error) {
	r, err := ring.Rebalance(prev, ring.Equal(names...))
	if err != nil {
		return placement{}, err
	}
	p := ringPlacement(r)
	p.next = func(names []string) (placement, error) { return rebalanced(r, names) }
	return p, nil
}

func ringPlacement(r *ring.Ring) placement {
	members := r.Members()
	return placement{
		owner: func(i int) string { return members[r.Owner(uint64(i)<<(64-ringSlotBits))].Name },
		// The keys are all over the table, so that most lookups miss the first-level cache.
		lookups: func(n int) {
			key, sum := uint64(0), 0
			for range n {
				key += golden
				sum += r.Owner(key)
			}
			runtime.KeepAlive(sum)
		},
	}
}

// words are keys for libraries that take strings, made beforehand: their making is not the libraries' to pay for.
var words = func() (w [1 << 12]string) {
	for i := range w {
		w[i] = sampleKey(i)
	}
	return w
}()

func sampleKey(i int) string { return strconv.FormatUint(mix(uint64(i)), 16) }

// buildHashring gives each member 100 points. The library's own default is one point, whose balance would be a straw man.
func buildHashring(names []string) (placement, error) {
	weights := make(map[string]int, len(names))
	for _, name := range names {
		weights[name] = 100
	}
	h := hashring.NewWithWeights(weights)
	return placement{
		owner: func(i int) string {
			node, _ := h.GetNode(sampleKey(i))
			return node
		},
		lookups: func(n int) {
			sum := 0
			for i := range n {
				node, _ := h.GetNode(words[i%len(words)])
				sum += len(node)
			}
			runtime.KeepAlive(sum)
		},
	}, nil
}

// buildGroupcache has as many points as groupcache itself uses, and its default hash.
func buildGroupcache(names []string) (placement, error) {
	m := consistenthash.New(50, nil)
	m.Add(names...)
	return placement{
		owner: func(i int) string { return m.Get(sampleKey(i)) },
		lookups: func(n int) {
			sum := 0
			for i := range n {
				sum += len(m.Get(words[i%len(words)]))
			}
			runtime.KeepAlive(sum)
		},
	}, nil
}

const (
	contribPositions = 131_071
	contribPoints    = 200
	contribProbes    = 10
)

// buildContribRing is the ring of contrib's load_balancing exporter v0.160.0. A point of a member belongs at the CRC-32 of
// name and number, modulo the positions. In the order of positions, then of hashes, points take theirs or one of the nine
// after it, or are left out if all are taken. A key belongs to the first point at or after its own position.
func buildContribRing(names []string) (placement, error) {
	type point struct {
		hash   uint32
		member int
	}
	sorted := slices.Sorted(slices.Values(names))
	var points []point
	for member, name := range sorted {
		for i := range uint32(contribPoints) {
			hash := crc32.ChecksumIEEE(binary.LittleEndian.AppendUint32([]byte(name), i))
			points = append(points, point{hash, member})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash%contribPositions, b.hash%contribPositions), cmp.Compare(a.hash, b.hash),
			cmp.Compare(a.member, b.member))
	})
	members := slices.Repeat([]int{-1}, contribPositions)
	for _, p := range points {
		for probe := range contribProbes {
			if at := (int(p.hash%contribPositions) + probe) % contribPositions; members[at] < 0 {
				members[at] = p.member
				break
			}
		}
	}
	// Backwards, and twice round to know what comes after the last position.
	following := -1
	for i := 2*contribPositions - 1; i >= 0; i-- {
		at := i % contribPositions
		if members[at] < 0 {
			members[at] = following
		}
		following = members[at]
	}
	return placement{owner: func(i int) string { return sorted[members[i]] }}, nil
}

const maglevSlots = 65_537 // prime, the default of Envoy

// buildMaglev is the table of Eisenbud et al., "Maglev" (2016), section 3.4: members take turns at choosing the next slot
// of their permutation that is free.
func buildMaglev(names []string) (placement, error) {
	sorted := slices.Sorted(slices.Values(names))
	next, skip := make([]int, len(sorted)), make([]int, len(sorted))
	for m, name := range sorted {
		next[m] = int(hashName(name, 0) % maglevSlots)
		skip[m] = int(hashName(name, 1)%(maglevSlots-1)) + 1
	}
	owners := slices.Repeat([]int{-1}, maglevSlots)
	for taken := 0; taken < maglevSlots; taken++ {
		m := taken % len(sorted)
		for owners[next[m]] >= 0 {
			next[m] = (next[m] + skip[m]) % maglevSlots
		}
		owners[next[m]] = m
	}
	return placement{owner: func(i int) string { return sorted[owners[i]] }}, nil
}

const boundedSlots = 65_536

// buildBounded is consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018) of slots in place of keys,
// as buraksezer/consistent has made it popular: 20 points per member, and a slot goes to the first point at or after its
// own hash whose member has less than 1.01 times the mean, rounded up.
func buildBounded(names []string) (placement, error) {
	type point struct {
		hash   uint64
		member int
	}
	sorted := slices.Sorted(slices.Values(names))
	var points []point
	for m, name := range sorted {
		for i := range 20 {
			points = append(points, point{hashName(name, uint64(i)), m})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	limit := (boundedSlots*101 + 100*len(sorted) - 1) / (100 * len(sorted))
	loads := make([]int, len(sorted))
	owners := make([]int, boundedSlots)
	for slot := range owners {
		at, _ := slices.BinarySearchFunc(points, mix(uint64(slot)), func(p point, hash uint64) int {
			return cmp.Compare(p.hash, hash)
		})
		at %= len(points)
		for loads[points[at].member] >= limit {
			at = (at + 1) % len(points)
		}
		owners[slot] = points[at].member
		loads[points[at].member]++
	}
	return placement{owner: func(i int) string { return sorted[owners[i]] }}, nil
}

// buildSampled gives every member exactly the same share of all possible keys: the imbalance that shows is that of the
// sample, which the schemes without slots have on top of their own. Its movement means nothing.
func buildSampled(names []string) (placement, error) {
	return placement{owner: func(i int) string {
		hi, _ := bits.Mul64(mix(uint64(i)), uint64(len(names)))
		return names[hi]
	}}, nil
}

// hashName hashes a name, with a number to have several hashes of it: FNV-1a, mixed.
func hashName(name string, number uint64) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return mix(mix(h) + number)
}
