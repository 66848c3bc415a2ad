// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
)

// memory is a Storage that outlives Converters, and fails as it is told to.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	// fail, if not nil, is asked at each Put whether to fail, and what part of it happens then.
	fail func() (part, error)
}

type part int

const (
	nothing part = iota
	everything
	some // every other operation, and journal entries are cut short, which is more than Storage is allowed
)

var errStorage = errors.New("storage is out")

func newMemory() *memory { return &memory{values: map[string][]byte{}} }

func (m *memory) Get(_ context.Context, keys []string) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = bytes.Clone(m.values[key])
	}
	return values, nil
}

func (m *memory) Put(_ context.Context, values []store.KeyValue, deletes []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	happens := everything
	if m.fail != nil {
		if happens, err = m.fail(); err == nil {
			happens = everything
		}
	}
	if happens == nothing {
		return err
	}
	for i, v := range values {
		value := bytes.Clone(v.Value)
		if happens == some {
			if i%2 == 1 {
				continue
			}
			if strings.HasPrefix(v.Key, "j/") {
				value = value[:len(value)/2]
			}
		}
		m.values[v.Key] = value
	}
	for i, key := range deletes {
		if happens == everything || i%2 == 0 {
			delete(m.values, key)
		}
	}
	return err
}

// restarting is a Converter whose process ends now and then, without notice.
type restarting struct {
	t       *testing.T
	cfg     d2c.Config
	storage *memory
	rand    *rand.Rand
	conv    *d2c.Converter
}

func (r *restarting) next() (*d2c.Converter, error) {
	ctx := context.Background()
	if r.conv != nil && (r.cfg.MaxStale > 0 || r.rand.IntN(4) > 0) {
		return r.conv, nil
	}
	if r.conv != nil {
		if r.rand.IntN(2) == 0 {
			// A checkpoint that may end anywhere.
			r.troubled(3)
			_ = r.conv.Checkpoint(ctx)
			r.storage.fail = nil
		}
		if err := r.conv.Close(ctx); err != nil {
			return nil, err
		}
	}
	conv, recovery, err := d2c.OpenDurable(ctx, r.cfg, d2c.DurableConfig{Storage: r.storage, Owner: "test"})
	if err != nil {
		return nil, err
	}
	if len(recovery.Damaged) > 0 || recovery.Forgotten > 0 {
		return nil, errors.New("nothing was damaged, but that is what was found")
	}
	r.conv = conv
	return conv, nil
}

// troubled makes one in n calls of Put fail.
func (r *restarting) troubled(n int) {
	r.storage.fail = func() (part, error) {
		if r.rand.IntN(n) > 0 {
			return everything, nil
		}
		return part(r.rand.IntN(3)), errStorage
	}
}

func (r *restarting) convert(conv *d2c.Converter, md pmetric.Metrics) (d2c.Result, error) {
	before := marshal(md)
	r.troubled(3)
	defer func() { r.storage.fail = nil }()
	for {
		result, err := conv.Convert(context.Background(), md)
		if !errors.Is(err, errStorage) {
			return result, err
		}
		if !bytes.Equal(marshal(md), before) {
			return result, errors.New("a batch was refused and changed nevertheless")
		}
		if result.Points() != (d2c.Result{}) {
			return result, errors.New("a batch was refused and counted nevertheless")
		}
	}
}

// TestDurableHistories is TestHistories with storage that fails and processes that end: neither must make a difference.
func TestDurableHistories(t *testing.T) {
	for _, seed := range seeds(t, 1000) {
		var r *restarting
		_, err := playHistory(newRandomSource(seed, 30), func(cfg d2c.Config) (subject, error) {
			r = &restarting{t: t, cfg: cfg, storage: newMemory(), rand: rand.New(rand.NewPCG(seed, 0xd15c))}
			return r, nil
		})
		if err != nil {
			t.Fatalf("seed %d (run it alone with D2C_SEED=%d): %v", seed, seed, err)
		}
		if err := r.conv.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}
