// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/s3/s3test"
)

// history is what became of all appends to a log.
type history struct {
	mu      sync.Mutex
	done    []uint64 // in any order
	refused map[uint64]bool
	unknown map[uint64]bool
}

func (h *history) note(id uint64, done bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil:
		h.unknown[id] = true
	case done:
		h.done = append(h.done, id)
	default:
		h.refused[id] = true
	}
}

// owner appends to a log and makes snapshots of it, which have the IDs of all entries. It is killed at times, and begins anew.
type owner struct {
	t    *testing.T
	open func() *Driver
	h    *history
	d    *Driver
	end  log.Position
	ids  []uint64 // up to end
}

func (o *owner) kill() { o.d, o.end, o.ids = o.open(), log.Position{}, nil }

// step does one thing, and fails if what it reads is wrong.
func (o *owner) step() {
	ctx, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	if rand.IntN(20) == 0 {
		// The end comes at any moment.
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
		defer cancel()
		defer o.kill()
	}
	switch rand.IntN(10) {
	case 0:
		if len(o.ids) > 0 {
			_ = o.d.Compact(ctx, 0, o.end, idsOf(o.ids))
		}
	case 1, 2, 3:
		o.read(ctx)
	default:
		id := rand.Uint64() | 1
		// What an entry has inside is checked too.
		data := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, id), 1+rand.IntN(20))
		done, err := o.d.Append(ctx, []log.Append{{After: o.end, ID: id, Entry: data}})
		if err != nil {
			o.h.note(id, false, err)
			o.read(ctx)
			return
		}
		o.h.note(id, done[0], nil)
		if done[0] {
			o.end, o.ids = log.Position{Number: o.end.Number + 1, ID: id}, append(o.ids, id)
		} else {
			o.read(ctx)
		}
	}
}

func (o *owner) read(ctx context.Context) {
	tail, err := o.d.Read(ctx, 0, o.end)
	switch {
	case errors.Is(err, errMissing), errors.Is(err, errDamaged):
		o.t.Errorf("the log is lost: %v", err)
		return
	case err != nil:
		return
	}
	ids := o.ids
	if tail.From != o.end {
		ids = nil
		for s := tail.Snapshot; len(s) > 0; s = s[8:] {
			ids = append(ids, binary.LittleEndian.Uint64(s))
		}
	}
	if uint64(len(ids)) != tail.From.Number || len(ids) > 0 && ids[len(ids)-1] != tail.From.ID {
		o.t.Errorf("the snapshot is of %d entries, and it ends at %v", len(ids), tail.From)
	}
	for _, e := range tail.Entries {
		if binary.LittleEndian.Uint64(e.Data) != e.ID || binary.LittleEndian.Uint64(e.Data[len(e.Data)-8:]) != e.ID {
			o.t.Errorf("entry %x has another's data", e.ID)
		}
		ids = append(ids, e.ID)
	}
	if len(ids) < len(o.ids) || !slices.Equal(ids[:len(o.ids)], o.ids) {
		o.t.Errorf("what was read before, up to %v, is not what the log begins with", o.end)
	}
	o.end, o.ids = tail.End(), ids
}

func idsOf(ids []uint64) (b []byte) {
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint64(b, id)
	}
	return b
}

// Two owners of a log that do not know of each other, over a network that loses requests and answers, with snapshots, segments and
// sweeps at any time, and of objects of any age: what was acknowledged is there once, what was refused is not, and nothing is that a
// head names and somebody has deleted.
func TestTwoOwners(t *testing.T) {
	steps := 600
	if testing.Short() {
		steps = 150
	}
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.URL)
	faults := []s3test.Fault{slowDown, internal, conflict, lostRequest, lostAnswer, late, {Lose: s3test.Half}, {Delay: 3 * time.Millisecond}}
	proxy.Fail(func(r *http.Request) s3test.Fault {
		if rand.IntN(8) > 0 {
			return s3test.Fault{}
		}
		return faults[rand.IntN(len(faults))]
	})
	h := &history{refused: map[uint64]bool{}, unknown: map[uint64]bool{}}
	opener := func() *Driver {
		d := open(t, proxy.URL, func(o *Options) {
			o.MaxAttempts, o.LazySnapshots = 1+rand.IntN(3), rand.IntN(2) == 0
		})
		d.fit = true
		d.tailSize, d.tailEntries = 300, 2
		d.grace, d.leftover = 0, 0
		return d
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			o := &owner{t: t, open: opener, h: h}
			o.kill()
			for range steps {
				if o.step(); t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	proxy.Fail(nil)
	time.Sleep(2 * s3test.LateBy)
	last := &owner{t: t, open: opener, h: h}
	last.kill()
	last.read(background)
	place := map[uint64]int{}
	for i, id := range last.ids {
		if _, twice := place[id]; twice {
			t.Errorf("entry %x is there twice", id)
		}
		place[id] = i
		if h.refused[id] {
			t.Errorf("entry %x is there, and was refused", id)
		}
	}
	lost, unknown := 0, 0
	for _, id := range h.done {
		if _, ok := place[id]; !ok {
			lost++
		}
		delete(place, id)
	}
	for id := range place {
		if !h.unknown[id] {
			t.Errorf("entry %x is there, and nobody has appended it", id)
		}
		unknown++
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged entries are lost", lost, len(h.done))
	}
	t.Logf("%d acknowledged, %d refused, %d unknown of which %d are there", len(h.done), len(h.refused), len(h.unknown), unknown)
	if len(h.done) < steps/10 || len(h.refused) == 0 || unknown == 0 {
		t.Error("that is not what was to be tested")
	}
	last.d.lazy = false
	if err := last.d.Compact(background, 0, last.end, idsOf(last.ids)); err != nil {
		t.Fatal(err)
	}
	if keys := server.Objects(); len(keys) != 2 {
		t.Errorf("besides a head and a snapshot there are %v", keys)
	}
}

// A snapshot goes with the next append, and no request is made for it but the one that writes it. A sweep, even if it has waited for days,
// is not what loses it.
func TestSnapshotRidesAlong(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LazySnapshots = true })
	b.must(b.d, "first")
	b.d.log(0).swept = time.Now()
	b.proxy.Take()
	for _, data := range []string{"second", "third", "fourth"} {
		for range 2 { // of which the later is as good
			if err := b.compact(b.d); err != nil {
				t.Fatal(err)
			}
		}
		b.whole()
		b.must(b.d, data)
		if n := b.proxy.Take(); n["PUT"] != 3 || len(n) != 1 {
			t.Errorf("two snapshots and an append are %v", n)
		}
		b.d.leftover = 0
		if err := b.d.sweep(background, 0, b.d.log(0)); err != nil {
			t.Fatal(err)
		}
		b.d.leftover = leftover
		b.proxy.Take()
		tail, err := b.another().Read(background, 0, log.Position{})
		if err != nil || tail.Snapshot == nil || len(tail.Entries) != 1 {
			t.Errorf("the log has %d entries after a snapshot of %d bytes, error %v", len(tail.Entries), len(tail.Snapshot), err)
		}
		b.whole()
	}
	// A sweep while one waits.
	if err := b.compact(b.d); err != nil {
		t.Fatal(err)
	}
	b.d.leftover = 0
	if err := b.d.sweep(background, 0, b.d.log(0)); err != nil {
		t.Fatal(err)
	}
	b.must(b.d, "fifth")
	b.whole()
	// One that waits while another appends is not named any more: it may be gone.
	if err := b.compact(b.d); err != nil {
		t.Fatal(err)
	}
	other := b.another()
	other.leftover = 0
	b.must(other, "sixth")
	if err := other.sweep(background, 0, other.log(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.d.Read(background, 0, b.end); err != nil {
		t.Fatal(err)
	}
	b.must(b.d, "seventh")
	b.whole()
}

// A process that slept between writing a snapshot and naming it must not name what a sweep has deleted, whether it learns of the head that
// the sweep has put when it puts its own, or before.
func TestSleeperNamesNothingDeleted(t *testing.T) {
	for _, reads := range []bool{false, true} {
		t.Run(fmt.Sprintf("it reads meanwhile %v", reads), func(t *testing.T) {
			b := newBench(t)
			b.must(b.d, "first")
			b.must(b.d, "second")
			waker := b.another()
			waker.leftover = 0
			var once sync.Once
			b.proxy.Fail(func(r *http.Request) s3test.Fault {
				if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, snapshotSuffix) {
					return s3test.Fault{}
				}
				return s3test.Fault{Answer: func(_ http.Header, body []byte) []byte {
					once.Do(func() {
						// The snapshot is there, and nothing names it. Somebody sweeps, and nobody appends.
						if err := waker.sweep(background, 0, waker.log(0)); err != nil {
							t.Error(err)
						}
						for _, key := range b.server.Objects() {
							if strings.HasSuffix(key, snapshotSuffix) {
								t.Error("the sweep left the snapshot")
							}
						}
						if reads {
							if _, err := b.d.Read(background, 0, b.end); err != nil {
								t.Error(err)
							}
						}
					})
					return body
				}}
			})
			if err := b.compact(b.d); err != nil {
				t.Fatal(err)
			}
			b.whole()
			tail, err := b.another().Read(background, 0, log.Position{})
			if err != nil || tail.Snapshot == nil {
				t.Errorf("no snapshot was made, error %v", err)
			}
		})
	}
}

// A snapshot of less than others have appended meanwhile is as good.
func TestCompactAfterAnother(t *testing.T) {
	b := newBench(t)
	b.must(b.d, "first")
	b.must(b.d, "second")
	at := b.end
	b.must(b.another(), "third")
	if err := b.d.Compact(background, 0, at, []byte("first\nsecond")); err != nil {
		t.Fatal(err)
	}
	b.whole()
	tail, err := b.another().Read(background, 0, log.Position{})
	if err != nil || tail.Snapshot == nil || len(tail.Entries) != 1 {
		t.Errorf("the log has %d entries after a snapshot of %d bytes, error %v", len(tail.Entries), len(tail.Snapshot), err)
	}
}

// Objects that no head names any more are kept for readers for a while, and then deleted; what a crash has left is deleted when it is
// old; what others have put there is left alone.
func TestCleanUp(t *testing.T) {
	b := newBench(t)
	count := func() (n int) { return len(b.server.Objects()) }
	long := func() {
		for range 2*tailEntries + 1 {
			b.must(b.d, fmt.Sprintf("%0*d", tailSize, 0))
		}
	}
	long()
	if n := count(); n != 3 { // the head and two segments
		t.Fatalf("%d objects", n)
	}
	for range 2 {
		if err := b.compact(b.d); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(); n != 5 { // segments, snapshots, and the head
		t.Fatalf("%d objects", n)
	}
	b.d.grace = 0
	b.must(b.d, "x")
	if err := b.compact(b.d); err != nil {
		t.Fatal(err)
	}
	if keys := b.server.Objects(); len(keys) != 2 {
		t.Fatalf("after their time, there are %v", keys)
	}
	b.whole()

	// A crash after a snapshot was written, and others' objects.
	left := b.d.logKey(0) + "0123456789abcdef0123456789abcdef" + snapshotSuffix
	foreign := b.d.logKey(0) + "notes.txt"
	for _, key := range []string{left, foreign} {
		if _, _, err := b.d.bucket.put(background, key, []byte("x"), ""); err != nil {
			t.Fatal(err)
		}
	}
	other := b.another()
	if err := b.compact(other); err != nil {
		t.Fatal(err)
	}
	if keys := b.server.Objects(); !slices.Contains(keys, left) {
		t.Errorf("what is not old is deleted: %v", keys)
	}
	other = b.another()
	other.leftover = 0
	if err := b.compact(other); err != nil {
		t.Fatal(err)
	}
	keys := b.server.Objects()
	if slices.Contains(keys, left) || !slices.Contains(keys, foreign) {
		t.Errorf("then there are %v", keys)
	}
	b.must(b.d, "y") // where the log ends is as before
	b.whole()
}

// A bucket that keeps versions works, and it is known. So does one whose objects nobody may delete for a day: what is put or deleted there
// is a new version.
func TestVersionedBucket(t *testing.T) {
	if newBench(t).d.Versions() {
		t.Error("a bucket without versions is said to keep them")
	}
	for _, locked := range []bool{false, true} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			b := &bench{t: t, server: s3test.Start(t, "--versioning-dir", t.TempDir())}
			admin, name := b.server.Admin(), aws.String("versions")
			if _, err := admin.CreateBucket(background, &awss3.CreateBucketInput{Bucket: name, ObjectLockEnabledForBucket: &locked}); err != nil {
				t.Fatal(err)
			}
			if _, err := admin.PutBucketVersioning(background, &awss3.PutBucketVersioningInput{
				Bucket: name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
			}); err != nil {
				t.Fatal(err)
			}
			if locked {
				if _, err := admin.PutObjectLockConfiguration(background, &awss3.PutObjectLockConfigurationInput{
					Bucket: name, ObjectLockConfiguration: &types.ObjectLockConfiguration{
						ObjectLockEnabled: types.ObjectLockEnabledEnabled,
						Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{
							Mode: types.ObjectLockRetentionModeCompliance, Days: aws.Int32(1),
						}},
					},
				}); err != nil {
					t.Fatal(err)
				}
			}
			b.d = open(t, b.server.URL, func(o *Options) { o.Bucket = *name })
			b.d.grace, b.d.leftover, b.d.tailSize, b.d.tailEntries = 0, 0, 100, 2
			for i := range 20 {
				b.must(b.d, fmt.Sprint("entry ", i))
				if i%7 == 6 {
					if err := b.compact(b.d); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !b.d.Versions() {
				t.Error("a bucket with versions is not told from others")
			}
			tail, err := open(t, b.server.URL, func(o *Options) { o.Bucket = *name }).Read(background, 0, log.Position{})
			if err != nil || tail.End() != b.end {
				t.Errorf("the log ends at %v, want %v, error %v", tail.End(), b.end, err)
			}
		})
	}
}
