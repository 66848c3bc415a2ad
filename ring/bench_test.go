// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"fmt"
	"testing"
)

// sink keeps results alive.
var sink int

// BenchmarkOwner looks up random keys: the table is 512 KiB, so most of them miss the first-level cache.
func BenchmarkOwner(b *testing.B) {
	for _, n := range []int{3, 100, 1000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			r := mustNew(b, fleet("worker", n))
			b.ReportAllocs()
			key, sum := uint64(0), 0
			for b.Loop() {
				key += golden
				sum += r.Owner(key)
			}
			sink = sum
		})
	}
}

func BenchmarkOwners(b *testing.B) {
	for _, n := range []int{3, 10, 100, 1000} {
		for _, want := range []int{2, 3} {
			b.Run(fmt.Sprintf("members=%d/owners=%d", n, want), func(b *testing.B) {
				r := mustNew(b, fleet("worker", n))
				dst := make([]int, want)
				b.ReportAllocs()
				key := uint64(0)
				for b.Loop() {
					key += golden
					sink += r.Owners(key, dst)[want-1]
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{2, 10, 100, 1000, 5000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			members := fleet("worker", n)
			b.ReportAllocs()
			for b.Loop() {
				mustNew(b, members)
			}
		})
	}
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("members=%d/weighted", n), func(b *testing.B) {
			members := fleet("worker", n)
			for i := range members {
				members[i].Weight = uint32(i + 1)
			}
			b.ReportAllocs()
			for b.Loop() {
				mustNew(b, members)
			}
		})
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		members := fleet("worker", n+1)
		before, joined := mustNew(b, members[:n]), mustNew(b, members)
		renamed := mustNew(b, fleet("other", n))
		b.Run(fmt.Sprintf("members=%d/join", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink += Diff(before, joined).Moved
			}
		})
		b.Run(fmt.Sprintf("members=%d/all", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink += Diff(before, renamed).Moved
			}
		})
	}
}

func BenchmarkRebalance(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		members := fleet("worker", n+1)
		fresh := mustNew(b, members)
		before := mustRebalance(b, mustNew(b, members[:n]), members[:n])
		after := mustRebalance(b, before, members)
		for _, c := range []struct {
			name    string
			prev    *Ring
			members []Member
		}{{"fresh", fresh, members}, {"join", before, members}, {"leave", after, members[:n]}} {
			b.Run(fmt.Sprintf("members=%d/%s", n, c.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					mustRebalance(b, c.prev, c.members)
				}
			})
		}
	}
}

func BenchmarkBinary(b *testing.B) {
	r := mustNew(b, fleet("worker", 100))
	data := marshal(b, r)
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		buf := data[:0:len(data)]
		for b.Loop() {
			buf, _ = r.AppendBinary(buf[:0])
		}
	})
	b.Run("unmarshal", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			var got Ring
			if err := got.UnmarshalBinary(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
