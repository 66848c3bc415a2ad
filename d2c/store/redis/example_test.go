// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/streamid"
)

// A process that shares its streams with others, without a Collector.
func Example() {
	options := goredis.UniversalOptions{Addrs: []string{"127.0.0.1:6379"}, ReadTimeout: time.Second}
	redis.Tune(&options)
	client := goredis.NewClient(options.Simple()) // or NewFailoverClient, or NewClusterClient
	defer client.Close()

	shared, err := redis.New(client, redis.Options{Name: "billing", TTL: 24 * time.Hour, MaxRetries: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	// d2c.OpenShared takes it; this is what it does with it.
	use(shared)
}

func use(shared store.Shared) {
	ctx := context.Background()
	lives, err := shared.Lives(ctx, store.Life{ID: 42, Floor: time.Now().UnixNano()})
	if err != nil {
		fmt.Println(err)
		return
	}
	stream := streamid.ID{Hi: 1, Lo: 2}
	life := lives[store.Group(stream, len(lives))].ID
	results, err := shared.Swap(ctx, []store.Swap{{ID: stream, Life: life, Tag: 7, Record: []byte("a total")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("there was none:", results[0].Status == store.Swapped)
	results, err = shared.Swap(ctx, []store.Swap{{ID: stream, Life: life, Tag: 8, Record: []byte("another")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("there is one: %s\n", results[0].Record)
}

// The example has no server of its own; with one it does what it says.
func TestExample(t *testing.T) {
	client := goredis.NewClient(&goredis.Options{Addr: redistest.Start(t).Addr})
	defer client.Close()
	shared, err := redis.New(client, redis.Options{Name: "billing", TTL: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	use(shared)
}
