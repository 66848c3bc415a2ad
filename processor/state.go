// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c"
)

// client is a storage extension's client as d2c wants it.
type client struct {
	storage.Client
	spaced bool
}

// spacers are the endings of keys without a value that follow each large value in file_storage. It keeps its keys in pages of
// a B+tree, divides no page with fewer than five of them, and writes a page anew when any of them changes: a value of 40 KB
// is written four or five times unless there is something small to share the page with. This many do, and the processor
// writes a quarter of the bytes.
var spacers = []string{"/a", "/b", "/c", "/d"}

// spacedFrom is the size of a value that gets spacers: a page.
const spacedFrom = 4096

func (c client) Get(ctx context.Context, keys []string) ([][]byte, error) {
	ops := make([]*storage.Operation, len(keys))
	for i, key := range keys {
		ops[i] = storage.GetOperation(key)
	}
	if err := c.Batch(ctx, ops...); err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	for i, op := range ops {
		values[i] = op.Value
	}
	return values, nil
}

func (c client) Put(ctx context.Context, values []d2c.KeyValue, deletes []string) error {
	ops := make([]*storage.Operation, 0, len(values)+len(deletes))
	for _, v := range values {
		ops = append(ops, storage.SetOperation(v.Key, v.Value))
		if c.spaced && len(v.Value) >= spacedFrom {
			for _, s := range spacers {
				ops = append(ops, storage.SetOperation(v.Key+s, nil))
			}
		}
	}
	for _, key := range deletes {
		ops = append(ops, storage.DeleteOperation(key))
		if c.spaced {
			for _, s := range spacers {
				ops = append(ops, storage.DeleteOperation(key+s))
			}
		}
	}
	return c.Batch(ctx, ops...)
}

// inUse has the clients of this process, for several processes are kept apart by the extension itself. The Collector makes
// an instance of a processor for each pipeline that names it: they would write over each other's state.
var inUse = struct {
	sync.Mutex
	by map[clientName]bool
}{by: map[clientName]bool{}}

var fileStorage = component.MustNewType("file_storage")

type clientName struct {
	extension component.Component
	processor component.ID
}

// openClient returns the client of the extension named id for the processor, and a function that closes it.
func openClient(
	ctx context.Context, host component.Host, id, processor component.ID,
) (d2c.Storage, func(context.Context) error, error) {
	ext, found := host.GetExtensions()[id]
	if !found {
		return nil, nil, fmt.Errorf("state::storage: extension %q is not there: list it under service::extensions", id)
	}
	store, ok := ext.(storage.Extension)
	if !ok {
		return nil, nil, fmt.Errorf("state::storage: extension %q is not a storage extension", id)
	}
	name := clientName{ext, processor}
	inUse.Lock()
	defer inUse.Unlock()
	if inUse.by[name] {
		return nil, nil, fmt.Errorf("state::storage: %q is in several pipelines, and each would need state of its own: "+
			"configure one processor for each, for instance %q and %q",
			processor, component.NewIDWithName(processor.Type(), "a"), component.NewIDWithName(processor.Type(), "b"))
	}
	c, err := store.GetClient(ctx, component.KindProcessor, processor, "")
	if err != nil {
		return nil, nil, fmt.Errorf("state::storage: extension %q: %w", id, err)
	}
	inUse.by[name] = true
	return client{c, id.Type() == fileStorage}, func(ctx context.Context) error {
		inUse.Lock()
		defer inUse.Unlock()
		delete(inUse.by, name)
		return c.Close(ctx)
	}, nil
}

// openState returns a converter whose state is in the storage extension, and logs what was found there.
func (p *d2cProcessor) openState(ctx context.Context, host component.Host) error {
	store, closeClient, err := openClient(ctx, host, *p.cfg.State.Storage, p.id)
	if err != nil {
		return err
	}
	started, told := time.Now(), time.Now()
	conv, found, err := d2c.Open(ctx, p.cfg.converter(), d2c.Local{
		Storage: store,
		Owner:   p.id.String(),
		Progress: func(r d2c.Recovery) {
			if time.Since(told) < progressInterval {
				return
			}
			told = time.Now()
			p.logger.Info("restoring state", zap.Int("streams", r.Streams), zap.Int64("bytes", r.Bytes),
				zap.Int("journal_entries", r.Entries))
		},
		Trouble: p.events.checkpoints,
	})
	if err != nil {
		_ = closeClient(ctx)
		return fmt.Errorf("state::storage: extension %q: %w", p.cfg.State.Storage, err)
	}
	p.conv, p.closeClient = conv, closeClient
	p.logger.Info("state restored",
		zap.Stringer("storage", p.cfg.State.Storage),
		zap.Int("streams", found.Streams),
		zap.Int("expired", found.Expired),
		zap.Int64("bytes", found.Bytes),
		zap.Int("journal_entries", found.Entries),
		zap.Duration("took", time.Since(started)),
	)
	if found.Torn {
		p.logger.Warn("the last journal entry was cut short and is dropped: its batch had not been acknowledged")
	}
	for _, d := range found.Damaged {
		p.logger.Error("a value in storage is damaged; streams that it may have concerned begin anew",
			zap.String("key", d.Key), zap.String("kept_as", d.Aside), zap.Error(d.Err))
	}
	if len(found.Damaged) > 0 {
		p.logger.Error("storage was damaged", zap.Int("values", len(found.Damaged)), zap.Int("streams_forgotten", found.Forgotten))
	}
	p.telemetry.recordDamaged(ctx, len(found.Damaged))
	return nil
}

// progressInterval is how often a long recovery tells how far it is.
const progressInterval = 5 * time.Second

// closeState ends what openState began.
func (p *d2cProcessor) closeState(ctx context.Context) error {
	if p.closeClient == nil {
		return nil
	}
	if err := p.conv.Close(ctx); err != nil {
		// Storage does not answer; to close it would wait for the same.
		return err
	}
	closeClient := p.closeClient
	p.closeClient = nil
	return closeClient(ctx)
}
