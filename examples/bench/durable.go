// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/storage/filestorage"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processortest"

	d2cprocessor "github.com/deltaring/deltaring/processor/d2cprocessor"
)

// durableRow is what it costs to keep the state of n sum streams in file_storage, with batches of 1000 points.
type durableRow struct {
	Streams int  `json:"streams"`
	FSync   bool `json:"fsync"`
	// Nanoseconds per point, elapsed and of CPU time, of the processor with state in memory and in file_storage.
	MemoryNS     float64 `json:"memory_ns"`
	MemoryCPUNS  float64 `json:"memory_cpu_ns"`
	DurableNS    float64 `json:"durable_ns"`
	DurableCPUNS float64 `json:"durable_cpu_ns"`
	// Restore is how long a start takes with all streams in storage.
	Restore time.Duration `json:"restore_ns"`
	// RecordBytes is the size of the live records, StoredBytes of all keys and values at the end, FileBytes of the file.
	RecordBytes int64 `json:"record_bytes"`
	StoredBytes int64 `json:"stored_bytes"`
	FileBytes   int64 `json:"file_bytes"`
}

// times returns how much more CPU time the processor takes with its state in file_storage.
func (r durableRow) times() float64 { return r.DurableCPUNS / r.MemoryCPUNS }

// epochStart is where all streams begin.
const epochStart = pcommon.Timestamp(epoch)

// sumRecord is the least that the record of a sum stream takes, where all share their times: identity, flags, three times and
// a value that is yet small.
const sumRecord = 16 + 1 + 3 + 2

// storageHost is a host with one file_storage.
type storageHost struct {
	extensions map[component.ID]component.Component
	dir        string
}

func (h *storageHost) GetExtensions() map[component.ID]component.Component { return h.extensions }

func newStorageHost(dir string, fsync bool) (*storageHost, error) {
	f := filestorage.NewFactory()
	cfg := f.CreateDefaultConfig().(*filestorage.Config)
	cfg.Directory, cfg.FSync = dir, fsync
	ext, err := f.Create(context.Background(), extensiontest.NewNopSettings(f.Type()), cfg)
	if err != nil {
		return nil, err
	}
	return &storageHost{map[component.ID]component.Component{component.NewID(f.Type()): ext}, dir}, nil
}

// storedBytes returns the size of what a d2c processor has in storage. It must not be running.
func (h *storageHost) storedBytes(ctx context.Context) (n int64, err error) {
	ext := h.extensions[component.MustNewID("file_storage")].(storage.Extension)
	client, err := ext.GetClient(ctx, component.KindProcessor, component.MustNewID("d2c"), "")
	if err != nil {
		return 0, err
	}
	err = client.(storage.Walker).Walk(ctx, func(key string, value []byte) ([]*storage.Operation, error) {
		n += int64(len(key) + len(value))
		return nil, nil
	})
	return n, errors.Join(err, client.Close(ctx))
}

func (h *storageHost) fileBytes() (n int64) {
	files, _ := filepath.Glob(filepath.Join(h.dir, "*"))
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			n += info.Size()
		}
	}
	return n
}

// startProcessor starts a d2c processor with state in the host's storage, or in memory if host is nil.
func startProcessor(host *storageHost) (processor.Metrics, error) {
	f := d2cprocessor.NewFactory()
	cfg := f.CreateDefaultConfig().(*d2cprocessor.Config)
	cfg.MaxStreams = maxStreams
	var h component.Host = componenttest.NewNopHost()
	if host != nil {
		id := component.MustNewID("file_storage")
		cfg.State.Storage = &id
		h = host
	}
	set := processortest.NewNopSettings(f.Type())
	set.ID = component.MustNewID("d2c") // not a random one: it is to find its state again
	p, err := f.CreateMetrics(context.Background(), set, cfg, consumertest.NewNop())
	if err != nil {
		return nil, err
	}
	return p, p.Start(context.Background(), h)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// durable measures both processors in turns.
func durable(n, rounds int, fsync bool) (row durableRow, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "d2c-bench-")
	if err != nil {
		return row, err
	}
	defer os.RemoveAll(dir)
	host, err := newStorageHost(dir, fsync)
	if err != nil {
		return row, err
	}
	inMemory, err := startProcessor(nil)
	if err != nil {
		return row, err
	}
	inStorage, err := startProcessor(host)
	if err != nil {
		return row, err
	}
	b, err := newBatch(kindSum)
	if err != nil {
		return row, err
	}
	row = durableRow{Streams: n, FSync: fsync, RecordBytes: int64(n) * sumRecord}

	var elapsed, cpu [2][]float64
	interval := 0
	round := func(side int, p processor.Metrics) error {
		var wall, used time.Duration
		for i := range batches(n) {
			b.load(i, interval)
			began, before := time.Now(), cpuTime()
			if err := p.ConsumeMetrics(ctx, b.md); err != nil {
				return err
			}
			wall += time.Since(began)
			used += cpuTime() - before
		}
		if interval > 0 { // the first opens the streams
			elapsed[side] = append(elapsed[side], float64(wall.Nanoseconds())/float64(n))
			cpu[side] = append(cpu[side], float64(used.Nanoseconds())/float64(n))
		}
		return nil
	}
	for range rounds + 1 {
		for side, p := range []processor.Metrics{inMemory, inStorage} {
			if err := round(side, p); err != nil {
				return row, err
			}
		}
		interval++
	}
	row.MemoryNS, row.DurableNS = median(elapsed[0]), median(elapsed[1])
	row.MemoryCPUNS, row.DurableCPUNS = median(cpu[0]), median(cpu[1])
	if err := inMemory.Shutdown(ctx); err != nil {
		return row, err
	}
	if err := inStorage.Shutdown(ctx); err != nil {
		return row, err
	}
	if row.StoredBytes, err = host.storedBytes(ctx); err != nil {
		return row, err
	}
	row.FileBytes = host.fileBytes()
	began := time.Now()
	again, err := startProcessor(host)
	if err != nil {
		return row, err
	}
	row.Restore = time.Since(began)
	// It must be the state of all streams: another delta of each goes on.
	for i := range batches(n) {
		b.load(i, interval)
		if err := again.ConsumeMetrics(ctx, b.md); err != nil {
			return row, err
		}
		dp := b.md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0)
		if dp.StartTimestamp() != epochStart {
			return row, fmt.Errorf("stream of batch %d starts at %d after a restart, want %d", i, dp.StartTimestamp(), epochStart)
		}
	}
	return row, again.Shutdown(ctx)
}
