// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensiontest"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/redis"
	"github.com/deltaring/deltaring/d2c/store/redis/redistest"
	"github.com/deltaring/deltaring/d2c/storetest"
	"github.com/deltaring/deltaring/processor/state/redisstate/internal/metadata"
)

// quiet is a logger for go-redis, which otherwise tells the test's output of every connection refused.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func init() { goredis.SetLogger(quiet{}) }

var testProcessor = component.MustNewID("d2c")

// testConfig is the default with the server's address, and less patience.
func testConfig(endpoints ...string) *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoints = endpoints
	return cfg
}

// startExtension starts an extension until the end of the test.
func startExtension(t testing.TB, cfg *Config) *redisState {
	t.Helper()
	return startExtensionWith(t, extensiontest.NewNopSettings(metadata.Type), cfg, componenttest.NewNopHost())
}

func startExtensionWith(t testing.TB, set extension.Settings, cfg *Config, host component.Host) *redisState {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ext, err := NewFactory().Create(context.Background(), set, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := ext.Start(context.Background(), host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ext.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return ext.(*redisState)
}

func sharedStore(t testing.TB, ext *redisState, processor component.ID) store.Shared {
	t.Helper()
	st, err := ext.SharedStore(context.Background(), processor)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// client is a store and what it knows of lives.
type client struct {
	*redis.Store
	lives []store.Life
}

// openStore returns a store on servers at the endpoints.
func openStore(t testing.TB, cfg *Config) *client {
	t.Helper()
	return clientOf(t, startExtension(t, cfg))
}

func clientOf(t testing.TB, ext *redisState) *client {
	t.Helper()
	return &client{Store: sharedStore(t, ext, testProcessor).(*redis.Store)}
}

// try swaps, and asks for lives before that if they are not known.
func (c *client) try(swaps ...store.Swap) ([]store.Result, error) {
	if c.lives == nil {
		lives, err := c.Lives(context.Background(), store.Life{ID: 77, Floor: 5})
		if err != nil {
			return nil, err
		}
		c.lives = lives
	}
	for i := range swaps {
		swaps[i].Life = c.lives[store.Group(swaps[i].ID, len(c.lives))].ID
	}
	return c.Swap(context.Background(), swaps)
}

// swap is Swap that must not fail.
func swap(t testing.TB, c *client, swaps ...store.Swap) []store.Result {
	t.Helper()
	results, err := c.try(swaps...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// mustSwap fails unless all swaps have been done.
func mustSwap(t testing.TB, c *client, swaps ...store.Swap) {
	t.Helper()
	for i, r := range swap(t, c, swaps...) {
		if r.Status != store.Swapped {
			t.Fatalf("swap %d: %+v", i, r)
		}
	}
}

func allow(t testing.TB, s *redistest.Server, more ...any) {
	t.Helper()
	s.Do(append(append([]any{"acl", "setuser", "worker", "on", ">" + secret}, words(acl)...), more...)...)
}

// The stores that an extension gives out are what a processor needs.
func TestShared(t *testing.T) {
	server := redistest.Start(t)
	storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
		server.Do("flushall")
		return storetest.Fixture{
			Open: func() store.Shared { return sharedStore(t, startExtension(t, testConfig(server.Addr)), testProcessor) },
			Wipe: func() { server.Do("flushall") },
		}
	})
}

// Two processors of one Collector have nothing in common.
func TestProcessorsShareNothing(t *testing.T) {
	ext := startExtension(t, testConfig(redistest.Start(t).Addr))
	a := clientOf(t, ext)
	b := &client{Store: sharedStore(t, ext, component.MustNewIDWithName("d2c", "b")).(*redis.Store)}
	mustSwap(t, a, store.Swap{Tag: 1, Record: []byte("a")})
	mustSwap(t, b, store.Swap{Tag: 2, Record: []byte("b")})
	mustSwap(t, a, store.Swap{Base: 1})
	mustSwap(t, b, store.Swap{Base: 2})
}

// The client's logger is one for the process: it is not ours to take.
func TestLoggerIsLeftAlone(t *testing.T) {
	logged := make(logTo, 100)
	goredis.SetLogger(logged)
	defer goredis.SetLogger(quiet{})
	startExtension(t, testConfig(redistest.FreeAddress(t)))
	foreign := goredis.NewClient(&goredis.Options{Addr: redistest.FreeAddress(t), MaxRetries: -1, PoolSize: 1})
	defer foreign.Close()
	for range 5 {
		_ = foreign.Ping(context.Background()).Err()
	}
	if len(logged) == 0 {
		t.Error("another component's client has nothing to say any more")
	}
}

type logTo chan struct{}

func (l logTo) Printf(context.Context, string, ...any) {
	select {
	case l <- struct{}{}:
	default:
	}
}
