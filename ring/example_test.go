// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring_test

import (
	"fmt"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/deltaring/deltaring/ring"
)

func Example() {
	r, err := ring.New(ring.Equal("worker-0", "worker-1", "worker-2"))
	if err != nil {
		panic(err)
	}
	for _, stream := range []string{"http.requests", "cpu.time", "rows.read", "queue.length"} {
		key := xxh3.HashString(stream)
		fmt.Println(stream, "belongs to", r.Members()[r.Owner(key)].Name)
	}
	// Output:
	// http.requests belongs to worker-1
	// cpu.time belongs to worker-2
	// rows.read belongs to worker-0
	// queue.length belongs to worker-0
}

// Before workers are added, see what it will move.
func ExampleDiff() {
	workers := ring.Equal("worker-0", "worker-1", "worker-2")
	now, err := ring.New(workers)
	if err != nil {
		panic(err)
	}
	then, err := ring.New(append(workers, ring.Member{Name: "worker-3", Weight: 2}))
	if err != nil {
		panic(err)
	}
	plan := ring.Diff(now, then)
	for _, move := range plan.Moves {
		fmt.Printf("%d slots from %s to %s\n", move.Slots, move.From, move.To)
	}
	fmt.Printf("%.1f %% of the keys, %.3f times the minimum\n", 100*plan.Share(), plan.Ratio())
	// Output:
	// 34865 slots from worker-0 to worker-3
	// 34820 slots from worker-1 to worker-3
	// 35111 slots from worker-2 to worker-3
	// 40.0 % of the keys, 0.999 times the minimum
}

// A coordinator keeps the ring it has handed out and moves exactly what is needed.
func ExampleRebalance() {
	workers := ring.Equal("worker-0", "worker-1", "worker-2")
	first, err := ring.New(workers)
	if err != nil {
		panic(err)
	}
	now, err := ring.Rebalance(first, workers)
	if err != nil {
		panic(err)
	}
	workers[1].Weight = 0 // drain worker-1
	then, err := ring.Rebalance(now, workers)
	if err != nil {
		panic(err)
	}
	fmt.Println("slots:", now.Loads(), "then", then.Loads())
	fmt.Println("moved:", ring.Diff(now, then).Ratio(), "times the minimum")
	// Output:
	// slots: [87382 87381 87381] then [131072 0 131072]
	// moved: 1 times the minimum
}

// Standbys come from other zones as long as there are any.
func ExampleRing_Owners() {
	var workers []ring.Member
	for _, zone := range []string{"a", "b", "c"} {
		for i := range 3 {
			workers = append(workers, ring.Member{Name: fmt.Sprint("worker-", zone, i), Weight: 1, Zone: zone})
		}
	}
	r, err := ring.New(workers)
	if err != nil {
		panic(err)
	}
	var buf [3]int
	var names []string
	for _, i := range r.Owners(xxh3.HashString("http.requests"), buf[:]) {
		names = append(names, r.Members()[i].Name)
	}
	fmt.Println(strings.Join(names, ", "))
	// Output:
	// worker-b0, worker-c2, worker-a1
}
