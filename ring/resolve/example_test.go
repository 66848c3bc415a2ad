// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package resolve_test

import (
	"context"
	"fmt"
	"time"

	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
)

func ExampleResolver_Follow() {
	members := resolve.Static{
		{Member: ring.Member{Name: "b", Weight: 1}, Address: "10.0.0.2:4317"},
		{Member: ring.Member{Name: "a", Weight: 1}, Address: "10.0.0.1:4317"},
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := resolve.Resolver{Source: members, Interval: time.Second, MaxMembers: 1000}
	r.Follow(ctx, func(list []resolve.Member) error {
		for _, m := range list {
			fmt.Println(m.Name, m.Address)
		}
		return nil
	}, func(r resolve.Report) {
		fmt.Println(r.Outcome, r.Err)
		cancel()
	})
	// Output:
	// a 10.0.0.1:4317
	// b 10.0.0.2:4317
	// found <nil>
}
