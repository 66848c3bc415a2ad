// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// storageClient is a storage extension's client as d2c wants it.
type storageClient struct {
	storage.Client
	spaced bool
}

// spacers are the endings of keys without a value that follow each large value in file_storage. It keeps its keys in pages of
// a B+tree, divides no page with fewer than five of them, and writes a page anew when any of them changes: a value of 40 KB
// is written four or five times unless there is something small to share the page with. This many will do.
var spacers = []string{"/a", "/b", "/c", "/d"}

var fileStorage = component.MustNewType("file_storage")

// spacedFrom is the size of a value that gets spacers: a page.
const spacedFrom = 4096

func (c storageClient) Get(ctx context.Context, keys []string) ([][]byte, error) {
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

func (c storageClient) Put(ctx context.Context, values []store.KeyValue, deletes []string) error {
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

// SharedState is what an extension must be for state::shared. One that forgets records which were not written for a while says
// after how long by a method RecordTTL() time.Duration, zero for never: max_stale must not be above.
type SharedState interface {
	component.Component
	// SharedStore returns the store for a processor. All workers of a fleet ask with the same ID.
	SharedStore(ctx context.Context, processor component.ID) (store.Shared, error)
}

// inUse has the processors of this process that have state in an extension, for those of other processes are kept apart by
// the extension itself. The Collector makes an instance of a processor for each pipeline that names it, and all of them would
// take each other's state for their own.
var inUse = struct {
	sync.Mutex
	by map[user]bool
}{by: map[user]bool{}}

type user struct {
	extension component.Component
	processor component.ID
}

// claim takes the extension named id for the processor, until release is called.
func claim(host component.Host, key string, id, processor component.ID) (ext component.Component, release func(), err error) {
	ext, found := host.GetExtensions()[id]
	if !found {
		return nil, nil, fmt.Errorf("%s: extension %q is not there: configure it under extensions and list it under service::extensions; %s", key, id, candidates(host, key))
	}
	u := user{ext, processor}
	if !reflect.TypeOf(ext).Comparable() {
		u.extension = nil // of all hosts of this process then
	}
	inUse.Lock()
	defer inUse.Unlock()
	if inUse.by[u] {
		return nil, nil, fmt.Errorf("%s: %q is in several pipelines, and each would need state of its own: "+
			"configure one processor for each, for instance %q and %q",
			key, processor, component.NewIDWithName(processor.Type(), "a"), component.NewIDWithName(processor.Type(), "b"))
	}
	inUse.by[u] = true
	return ext, func() {
		inUse.Lock()
		defer inUse.Unlock()
		delete(inUse.by, u)
	}, nil
}

// The keys that name an extension, and what it must be.
const (
	storageKey = "state::storage"
	sharedKey  = "state::shared"
)

func fits(key string, ext component.Component) (is bool) {
	if key == sharedKey {
		_, is = ext.(SharedState)
	} else {
		_, is = ext.(storage.Extension)
	}
	return is
}

// candidates says which extensions of the host the key could name.
func candidates(host component.Host, key string) string {
	var all []string
	for id, ext := range host.GetExtensions() {
		if fits(key, ext) {
			all = append(all, strconv.Quote(id.String()))
		}
	}
	if len(all) == 0 {
		return "there is none for " + key
	}
	slices.Sort(all)
	return "for " + key + " there is " + strings.Join(all, ", ")
}

// misplaced is the error for an extension that is there and is of another kind.
func misplaced(host component.Host, key string, id component.ID, ext component.Component) error {
	kind, other := "a storage extension", sharedKey
	if key == sharedKey {
		kind, other = "an extension for shared state", storageKey
	}
	if fits(other, ext) {
		return fmt.Errorf("%s: extension %q is not %s: did you mean %s: %s?", key, id, kind, other, id)
	}
	return fmt.Errorf("%s: extension %q is not %s; %s", key, id, kind, candidates(host, key))
}

// openState makes the converter with its state where the configuration says, if that is not memory alone.
func (p *d2cProcessor) openState(ctx context.Context, host component.Host) error {
	open, key, id := p.openStorage, storageKey, p.cfg.State.Storage
	if p.cfg.State.Shared != nil {
		open, key, id = p.openShared, sharedKey, p.cfg.State.Shared
	}
	if id == nil {
		return nil
	}
	ext, release, err := claim(host, key, *id, p.id)
	if err != nil {
		return err
	}
	if !fits(key, ext) {
		release()
		return misplaced(host, key, *id, ext)
	}
	if err := p.outlived(ext); err != nil {
		release()
		return err
	}
	p.events.host = host
	closeExtension, err := open(ctx, ext)
	if err != nil {
		release()
		return fmt.Errorf("%s: extension %q: %w", key, id, err)
	}
	p.closeExtension = func(ctx context.Context) error {
		defer release()
		return closeExtension(ctx)
	}
	return nil
}

// openShared shares the state of the streams with other workers.
func (p *d2cProcessor) openShared(ctx context.Context, ext component.Component) (func(context.Context) error, error) {
	st, err := ext.(SharedState).SharedStore(ctx, p.id)
	if err != nil {
		return nil, err
	}
	sharing := d2c.SharedConfig{
		Store: st,
		Owner: p.id.String(),
		OnDamaged: func(id streamid.ID, err error) {
			p.telemetry.recordDamaged(context.Background(), 1)
			p.events.damaged(id, err)
		},
		OnOutage: p.outage,
	}
	if p.cfg.State.OnError == OnErrorLocal {
		sharing.MaxOutstanding = p.cfg.State.MaxOutstanding
	}
	learning, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	if p.conv, err = d2c.OpenShared(learning, p.converter(), sharing); err != nil {
		return nil, err
	}
	return func(context.Context) error { return nil }, nil // the extension's own Shutdown is the end of the store
}

// learnTimeout bounds the wait for the life of shared state: a Collector starts without it, and asks again with each batch.
const learnTimeout = 5 * time.Second

// outage is told when shared state begins to fail, and when it has caught up.
func (p *d2cProcessor) outage(err error) {
	p.events.outage(err)
	if err != nil {
		return
	}
	missed := p.conv.Stats().Missed
	if n := missed - p.missed.Swap(missed); n > 0 {
		p.logger.Error("points given out while shared state failed could not be added to it: other workers had points of the same streams, or it came back without them",
			zap.Uint64("points", n))
	}
	p.logger.Info("shared state has caught up")
}

// openStorage keeps the state in a storage extension, and logs what was found there.
func (p *d2cProcessor) openStorage(ctx context.Context, ext component.Component) (func(context.Context) error, error) {
	c, err := ext.(storage.Extension).GetClient(ctx, component.KindProcessor, p.id, "")
	if err != nil {
		if err.Error() == "timeout" { // all that file_storage says of a file that is locked
			err = fmt.Errorf("%w: does another process have the state of %q open?", err, p.id)
		}
		return nil, err
	}
	started, told := time.Now(), time.Now()
	conv, found, err := d2c.OpenDurable(ctx, p.converter(), d2c.DurableConfig{
		Storage: storageClient{c, p.cfg.State.Storage.Type() == fileStorage},
		Owner:   p.id.String(),
		Progress: func(r d2c.Recovery) {
			if time.Since(told) < progressInterval {
				return
			}
			told = time.Now()
			p.logger.Info("restoring state", zap.Int("streams", r.Streams), zap.Int64("bytes", r.Bytes),
				zap.Int("journal_entries", r.Entries))
		},
		OnCheckpoints: p.events.checkpoints,
	})
	if err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	p.conv = conv
	p.logger.Info("state restored",
		zap.Stringer("storage", p.cfg.State.Storage),
		zap.Int("streams", found.Streams),
		zap.Int("expired", found.Expired),
		zap.Int64("bytes", found.Bytes),
		zap.Int("journal_entries", found.Entries),
		zap.Stringer("took", time.Since(started)),
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
	return c.Close, nil
}

// progressInterval is how often a long recovery tells how far it is.
const progressInterval = 5 * time.Second

// closeState ends what openState began.
func (p *d2cProcessor) closeState(ctx context.Context) error {
	if p.closeExtension == nil {
		return nil
	}
	var behind error
	if n := p.conv.Stats().Outstanding; n > 0 {
		// Before the converter is closed, for then it commits nothing any more.
		if err := p.conv.Reconcile(ctx); err != nil {
			behind = fmt.Errorf("%d points were given out but could not be committed: %w", n, err)
		}
	}
	if err := p.conv.Close(ctx); err != nil {
		// The extension does not answer; to close it would wait for the same.
		return errors.Join(behind, err)
	}
	closeExtension := p.closeExtension
	p.closeExtension = nil
	return errors.Join(behind, closeExtension(ctx))
}
