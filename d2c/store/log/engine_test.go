// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/streamid"
)

// spy is a driver that notes what it is asked for, and does what a test wants before and after that.
type spy struct {
	log.Memory
	before, after func(method string) error

	mu    sync.Mutex
	calls []string
	sizes []int // of entries
}

func (d *spy) call(method, text string, do func()) error {
	d.mu.Lock()
	d.calls = append(d.calls, method+text)
	before, after := d.before, d.after
	d.mu.Unlock()
	if before != nil {
		if err := before(method); err != nil {
			return err
		}
	}
	do()
	if after != nil {
		return after(method)
	}
	return nil
}

func (d *spy) Read(ctx context.Context, n int, after log.Position) (tail log.Tail, err error) {
	err = d.call("read", fmt.Sprintf(" %d after %d", n, after.Number), func() { tail, _ = d.Memory.Read(ctx, n, after) })
	return tail, err
}

func (d *spy) Append(ctx context.Context, appends []log.Append) (done []bool, err error) {
	text := ""
	for _, a := range appends {
		if text += fmt.Sprintf(" %d", a.Log); a.Entry == nil {
			text += "?"
		} else {
			d.mu.Lock()
			d.sizes = append(d.sizes, len(a.Entry))
			d.mu.Unlock()
		}
	}
	err = d.call("append", text, func() { done, _ = d.Memory.Append(ctx, appends) })
	return done, err
}

func (d *spy) Compact(ctx context.Context, n int, at log.Position, snapshot []byte) (err error) {
	return d.call("compact", fmt.Sprintf(" %d at %d", n, at.Number), func() { _ = d.Memory.Compact(ctx, n, at, snapshot) })
}

// told returns the calls since it was last called.
func (d *spy) told() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := strings.Join(d.calls, ", ")
	d.calls = nil
	return text
}

// bytes is what a log takes.
func (d *spy) bytes(n int) (size int) {
	tail, _ := d.Memory.Read(context.Background(), n, log.Position{})
	for _, e := range tail.Entries {
		size += len(e.Data)
	}
	return size + len(tail.Snapshot)
}

// user has swaps done by a store, of which none may fail.
type user struct {
	t     testing.TB
	st    *log.Store
	lives []store.Life
	tags  map[streamid.ID]uint64
}

func newUser(t testing.TB, st *log.Store) *user {
	t.Helper()
	lives, err := st.Lives(context.Background(), store.Life{ID: rand.Uint64() | 1})
	if err != nil {
		t.Fatal(err)
	}
	return &user{t, st, lives, map[streamid.ID]uint64{}}
}

// id is the i-th stream of a group.
func (u *user) id(group, i int) streamid.ID {
	return streamid.ID{Hi: uint64(group) * (1 << 32 / uint64(len(u.lives))) << 32, Lo: uint64(i)}
}

func (u *user) swap(id streamid.ID, record []byte) store.Swap {
	return store.Swap{ID: id, Life: u.lives[store.Group(id, len(u.lives))].ID, Base: u.tags[id], Tag: rand.Uint64() | 1, Record: record}
}

// put puts a record of each of the streams, in one call.
func (u *user) put(record []byte, ids ...streamid.ID) {
	u.t.Helper()
	var swaps []store.Swap
	for _, id := range ids {
		swaps = append(swaps, u.swap(id, record))
	}
	u.must(swaps)
}

func (u *user) must(swaps []store.Swap) {
	u.t.Helper()
	results, err := u.st.Swap(context.Background(), swaps)
	if err != nil {
		u.t.Fatal(err)
	}
	for i, r := range results {
		if r.Status != store.Swapped {
			u.t.Fatalf("swap %d of %d: status %d, tag %#x", i, len(swaps), r.Status, r.Tag)
		}
		if swaps[i].Record != nil {
			u.tags[swaps[i].ID] = swaps[i].Tag
		}
	}
}

// there returns what is stored.
func (u *user) there(id streamid.ID) store.Result {
	u.t.Helper()
	results, err := u.st.Swap(context.Background(), []store.Swap{{ID: id, Life: u.lives[store.Group(id, len(u.lives))].ID, Base: 1 << 62}})
	if err != nil {
		u.t.Fatal(err)
	}
	return results[0]
}

// fresh is what somebody finds who has not been there before.
func fresh(t testing.TB, driver log.Driver, opts log.Options, f func(*user)) {
	t.Helper()
	st, err := log.New(driver, opts)
	if err != nil {
		t.Fatal(err)
	}
	f(newUser(t, st))
	if err := st.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A commit is one call of the driver, with one entry for each log that it changes.
func TestCommitIsOneCall(t *testing.T) {
	d := new(spy)
	u := newUser(t, open(t, d, log.Options{Groups: 4, Readers: 1}))
	if got, want := d.told(), "append 0 1 2 3"; got != want {
		t.Errorf("lives of an empty store: %s, want %s", got, want)
	}
	u.put([]byte("x"), u.id(3, 1), u.id(1, 1), u.id(3, 2))
	if got, want := d.told(), "append 1 3"; got != want {
		t.Errorf("a commit: %s, want %s", got, want)
	}
	u.must([]store.Swap{{ID: u.id(1, 1), Life: u.lives[1].ID, Base: u.tags[u.id(1, 1)]}, u.swap(u.id(3, 1), []byte("y"))})
	if got, want := d.told(), "append 1? 3"; got != want {
		t.Errorf("a commit that compares only in one log: %s, want %s", got, want)
	}
	if _, err := u.st.Lives(context.Background(), store.Life{ID: 7}); err != nil {
		t.Error(err)
	}
	if got, want := d.told(), "append 0? 1? 2? 3?"; got != want {
		t.Errorf("lives that are known: %s, want %s", got, want)
	}
	other := newUser(t, open(t, d, log.Options{Groups: 4, Readers: 1}))
	if got, want := d.told(), "append 0 1 2 3, read 0 after 0, read 1 after 0, read 2 after 0, read 3 after 0"; got != want {
		t.Errorf("lives for who comes later: %s, want %s", got, want)
	}
	other.tags[u.id(3, 2)] = u.tags[u.id(3, 2)]
	other.put([]byte("z"), u.id(3, 2))
	if got, want := d.told(), "read 3 after 0, append 3"; got != want {
		t.Errorf("who takes a log over: %s, want %s", got, want)
	}
	if r := u.there(u.id(3, 2)); string(r.Record) != "z" {
		t.Errorf("what another has put: %q", r.Record)
	}
	if got, want := d.told(), "append 3?, read 3 after 3, append 3?"; got != want {
		t.Errorf("whose log has moved: %s, want %s", got, want)
	}
}

// After an error nobody knows what was done: what was touched is read on before it is used again, and nothing else.
func TestAfterAnError(t *testing.T) {
	for _, done := range []bool{false, true} {
		d := new(spy)
		u := newUser(t, open(t, d, log.Options{Groups: 4, Readers: 1}))
		u.put([]byte("x"), u.id(0, 1), u.id(1, 1), u.id(2, 1), u.id(3, 1))
		fault := errors.New("the network")
		fails := func(string) error { return fault }
		if d.before = fails; done {
			d.before, d.after = nil, fails
		}
		swaps := []store.Swap{u.swap(u.id(1, 1), []byte("y")), u.swap(u.id(2, 1), []byte("y"))}
		if results, err := u.st.Swap(context.Background(), swaps); !errors.Is(err, fault) || results != nil {
			t.Fatalf("results %v, error %v, want that of the driver", results, err)
		}
		d.before, d.after = nil, nil
		d.told()
		results, err := u.st.Swap(context.Background(), []store.Swap{swaps[0], u.swap(u.id(3, 1), []byte("y"))})
		if err != nil || results[1].Status != store.Swapped {
			t.Fatalf("after an error: %v, %v", results, err)
		}
		want, calls := store.Result{}, "read 1 after 2, append 1 3"
		if done {
			want, calls = store.Result{Status: store.Changed, Tag: swaps[0].Tag, Record: []byte("y")}, "read 1 after 2, append 1? 3"
		}
		if got := results[0]; got.Status != want.Status || got.Tag != want.Tag || !bytes.Equal(got.Record, want.Record) {
			t.Errorf("done %v: then %v, want %v", done, got, want)
		}
		if got := d.told(); got != calls {
			t.Errorf("done %v: then %s, want %s", done, got, calls)
		}
	}
}

// A driver that sends an append again where there was no answer may be told that it is refused. Its own entry is there.
func TestAppendedTwice(t *testing.T) {
	d := new(twice)
	u := newUser(t, open(t, d, log.Options{Groups: 2}))
	for i := range 10 {
		d.on = true
		u.put(fmt.Appendf(nil, "record %d", i), u.id(0, 1), u.id(1, i))
	}
	d.on = false
	fresh(t, d, log.Options{Groups: 2}, func(u *user) {
		if r := u.there(u.id(0, 1)); string(r.Record) != "record 9" {
			t.Errorf("in the end there is %q", r.Record)
		}
	})
}

// twice is a driver that appends everything twice.
type twice struct {
	log.Memory
	on bool
}

func (d *twice) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	if d.on {
		if _, err := d.Memory.Append(ctx, appends); err != nil {
			return nil, err
		}
	}
	return d.Memory.Append(ctx, appends)
}

// A log that never stays as it is ends in an error, soon.
func TestContended(t *testing.T) {
	d := new(spy)
	u := newUser(t, open(t, d, log.Options{Groups: 1}))
	other := newUser(t, open(t, &d.Memory, log.Options{Groups: 1}))
	n := 0
	d.before = func(method string) error {
		if method == "append" {
			n++
			other.put([]byte("busy"), other.id(0, 5))
		}
		return nil
	}
	_, err := u.st.Swap(context.Background(), []store.Swap{u.swap(u.id(0, 1), []byte("x"))})
	if err == nil || !strings.Contains(err.Error(), "keep appending") || n != 16 {
		t.Errorf("after %d tries: error %v", n, err)
	}
	d.before = nil
	u.put([]byte("x"), u.id(0, 1))
}

// An entry has no more than 4 MiB, but for a unit, which is not divided.
func TestLargeCommitsAreDivided(t *testing.T) {
	d := new(spy)
	u := newUser(t, open(t, d, log.Options{Groups: 1}))
	d.sizes = nil
	record := make([]byte, 1<<20)
	var swaps []store.Swap
	for i := range 20 {
		swap := u.swap(u.id(0, i), record)
		if i >= 6 && i < 14 {
			swap.Unit = 3
		}
		swaps = append(swaps, swap)
	}
	swaps = append(swaps, store.Swap{ID: u.id(0, 99), Life: u.lives[0].ID})
	u.must(swaps)
	var got []int
	for _, size := range d.sizes {
		got = append(got, size>>20)
	}
	if want := []int{4, 10, 4, 2}; !slices.Equal(got, want) {
		t.Errorf("entries of %v MiB, want %v", got, want)
	}
	fresh(t, d, log.Options{Groups: 1}, func(other *user) {
		for id, tag := range u.tags {
			if r := other.there(id); r.Tag != tag || len(r.Record) != len(record) {
				t.Errorf("stream %v: tag %#x, %d bytes", id, r.Tag, len(r.Record))
			}
		}
	})
}

// A log takes no more than a few times its records, however often these are written, and is right.
func TestSnapshotsBoundLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(spy)
		st, err := log.New(d, log.Options{Groups: 2})
		if err != nil {
			t.Fatal(err)
		}
		u := newUser(t, st)
		var ids []streamid.ID
		for i := range 1000 {
			ids = append(ids, u.id(0, i))
		}
		largest, compacted := 0, 0
		for i := range 300 {
			u.put(bytes.Repeat([]byte{byte(i)}, 300), ids...)
			synctest.Wait()
			largest = max(largest, d.bytes(0))
		}
		compacted = strings.Count(d.told(), "compact")
		if bound := 2<<20 + 500_000; largest > bound || compacted == 0 || compacted > 300*340_000/(1<<20) {
			t.Errorf("the log has had %d bytes, and %d snapshots", largest, compacted)
		}
		t.Logf("at most %d bytes, %d snapshots", largest, compacted)
		fresh(t, d, log.Options{Groups: 2}, func(other *user) {
			for _, id := range ids {
				if r := other.there(id); r.Tag != u.tags[id] || r.Record[0] != byte(299%256) {
					t.Fatalf("stream %v has tag %#x", id, r.Tag)
				}
			}
		})
		if err := st.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// No commit waits for a snapshot, there are never more than two on their way, and Close ends them.
func TestCommitsDoNotWaitForSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &hanging{hang: make(chan struct{})}
		st, err := log.New(d, log.Options{Groups: 8})
		if err != nil {
			t.Fatal(err)
		}
		u := newUser(t, st)
		record := make([]byte, 300_000)
		for range 10 {
			for g := range 8 {
				u.put(record, u.id(g, 1))
			}
		}
		synctest.Wait()
		if n := d.waiting(); n != 2 {
			t.Errorf("%d snapshots are on their way, want 2", n)
		}
		for range 3 {
			d.hang <- struct{}{}
			synctest.Wait()
			if n := d.waiting(); n != 2 {
				t.Errorf("%d snapshots are on their way, want 2", n)
			}
		}
		began := time.Now()
		if err := st.Close(context.Background()); err != nil || time.Since(began) != 0 {
			t.Errorf("Close takes %v: %v", time.Since(began), err)
		}
		if _, err := st.Swap(context.Background(), []store.Swap{u.swap(u.id(0, 1), record)}); !errors.Is(err, log.ErrClosed) {
			t.Errorf("Swap after Close: error %v", err)
		}
		if _, err := st.Lives(context.Background(), store.Life{ID: 1}); !errors.Is(err, log.ErrClosed) {
			t.Errorf("Lives after Close: error %v", err)
		}
		if err := st.SetAside(context.Background(), u.id(0, 1), record); !errors.Is(err, log.ErrClosed) {
			t.Errorf("SetAside after Close: error %v", err)
		}
	})
}

// hanging is a driver whose snapshots take until they are let, or their context is over. With stubborn, appends do not even end then.
type hanging struct {
	log.Memory
	hang     chan struct{}
	appends  bool
	stubborn bool
	mu       sync.Mutex
	n        int
}

func (d *hanging) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

func (d *hanging) add(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n += n
}

func (d *hanging) Compact(ctx context.Context, n int, at log.Position, snapshot []byte) error {
	d.add(1)
	defer d.add(-1)
	select {
	case <-d.hang:
		return d.Memory.Compact(ctx, n, at, snapshot)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *hanging) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	if d.stubborn {
		<-d.hang
	} else if d.appends {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return d.Memory.Append(ctx, appends)
}

// A driver that hangs is waited for as long as Timeout says, and Close as long as its context lasts.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &hanging{hang: make(chan struct{})}
		st, err := log.New(d, log.Options{Groups: 1, Timeout: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		u := newUser(t, st)
		d.appends = true
		began := time.Now()
		_, err = st.Swap(context.Background(), []store.Swap{u.swap(u.id(0, 1), []byte("x"))})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: error %v", time.Since(began), err)
		}
		d.appends = false
		u.put([]byte("x"), u.id(0, 1))

		d.stubborn = true
		go func() { _, _ = st.Swap(context.Background(), []store.Swap{u.swap(u.id(0, 1), []byte("y"))}) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := st.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Close while a call hangs: error %v", err)
		}
		d.hang <- struct{}{}
		if err := st.Close(context.Background()); err != nil {
			t.Errorf("Close again: %v", err)
		}
	})
}

// A snapshot that cannot be put is tried again, less and less often, also when nothing is committed.
func TestSnapshotsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(spy)
		st, err := log.New(d, log.Options{Groups: 1})
		if err != nil {
			t.Fatal(err)
		}
		u := newUser(t, st)
		began := time.Now()
		var times []time.Duration
		d.before = func(method string) error {
			if method != "compact" {
				return nil
			}
			if times = append(times, time.Since(began).Round(time.Second)); len(times) < 8 {
				return errors.New("the network")
			}
			return nil
		}
		record := make([]byte, 300_000)
		for range 60 { // for a minute
			u.put(record, u.id(0, 1))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute) // and nothing
		synctest.Wait()
		if len(times) != 8 || times[1]-times[0] != time.Second || times[4]-times[3] != 8*time.Second || times[7]-times[6] < 30*time.Second {
			t.Errorf("snapshots are tried at %v", times)
		}
		if n := d.bytes(0); n > 400_000 {
			t.Errorf("in the end the log has %d bytes", n)
		}
		if err := st.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// Records that nobody writes are left out once their time is over, those that are written stay, and a log that nobody uses is cleaned
// up by who used it last.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(spy)
		opts := log.Options{Groups: 2, TTL: time.Hour, Idle: 20 * time.Minute}
		st, err := log.New(d, opts)
		if err != nil {
			t.Fatal(err)
		}
		u := newUser(t, st)
		var once, idle []streamid.ID
		often := u.id(0, 0)
		for i := range 1000 {
			once, idle = append(once, u.id(0, 1+i)), append(idle, u.id(1, i))
		}
		record := make([]byte, 100)
		u.put(record, once...)
		u.put(record, idle...)
		full := d.bytes(0)
		for minutes := range 59 {
			if minutes%10 == 0 {
				u.put(record, often)
			}
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		fresh(t, d, opts, func(other *user) {
			if r := other.there(once[0]); r.Record == nil {
				t.Error("a record is gone before its time")
			}
		})
		if stats := st.Stats(); stats.Logs != 1 || stats.Streams != 1001 {
			t.Errorf("in memory are %+v, want the log that is used", stats)
		}
		for minutes := range 60 {
			if minutes%10 == 0 {
				u.put(record, often)
			}
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if n := d.bytes(0); n > full/20 {
			t.Errorf("the log that is used has %d bytes, of %d", n, full)
		}
		if n := d.bytes(1); n > full/20 {
			t.Errorf("the log that nobody uses has %d bytes, of %d", n, full)
		}
		if stats := st.Stats(); stats.Logs != 1 || stats.Streams != 1 {
			t.Errorf("in memory are %+v, want one log with one stream", stats)
		}
		fresh(t, d, opts, func(other *user) {
			if r := other.there(often); r.Tag != u.tags[often] {
				t.Error("a record that is written is gone")
			}
			if r := other.there(once[0]); r.Record != nil {
				t.Error("a record is there after its time")
			}
			for g, life := range other.lives {
				if life != u.lives[g] {
					t.Errorf("group %d has another life", g)
				}
			}
		})
		if err := st.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// Who no longer owns a log forgets it, and leaves it to its owner.
func TestOtherOwnersLogsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(spy)
		opts := log.Options{Groups: 1, TTL: time.Hour, Idle: 10 * time.Minute}
		first, err := log.New(d, opts)
		if err != nil {
			t.Fatal(err)
		}
		u := newUser(t, first)
		u.put(make([]byte, 1000), u.id(0, 1), u.id(0, 2))
		second, err := log.New(&d.Memory, opts)
		if err != nil {
			t.Fatal(err)
		}
		v := newUser(t, second)
		v.tags = u.tags
		for range 20 {
			v.put(make([]byte, 1000), v.id(0, 1))
			time.Sleep(9 * time.Minute)
		}
		synctest.Wait()
		if got := first.Stats(); got != (log.Stats{}) {
			t.Errorf("who does not own it any more has in memory %+v", got)
		}
		if got := second.Stats(); got.Logs != 1 || got.Streams != 1 {
			t.Errorf("who owns it has in memory %+v", got)
		}
		if calls := d.told(); strings.Contains(calls, "compact") {
			t.Errorf("who does not own it any more made a snapshot: %s", calls)
		}
		for _, st := range []*log.Store{first, second} {
			if err := st.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
}

// What was set aside can be looked at, by anybody, and after a snapshot.
func TestAside(t *testing.T) {
	d := new(spy)
	u := newUser(t, open(t, d, log.Options{Groups: 4}))
	id := u.id(2, 1)
	u.put([]byte("strange"), id, u.id(2, 2))
	for range 2 {
		if err := u.st.SetAside(context.Background(), id, []byte("strange")); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		fresh(t, d, log.Options{Groups: 4}, func(other *user) {
			all, err := other.st.Aside(context.Background())
			if err != nil || len(all) != 1 || all[0].ID != id || all[0].Tag != u.tags[id] || string(all[0].Record) != "strange" {
				t.Errorf("set aside are %+v, error %v", all, err)
			}
			if r := other.there(id); r.Record != nil || r.Tag != 0 {
				t.Errorf("it is still there: %v", r)
			}
			if r := other.there(u.id(2, 2)); r.Record == nil {
				t.Error("the one beside it is gone")
			}
		})
		if err := u.st.Compact(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// null is a driver that takes everything, and nothing at all.
type null struct {
	log.Memory
	done []bool
}

func (d *null) Append(_ context.Context, appends []log.Append) ([]bool, error) {
	return d.done[:len(appends)], nil
}

func newNull() *null {
	d := &null{done: make([]bool, 256)}
	for i := range d.done {
		d.done[i] = true
	}
	return d
}

// A swap allocates nothing in the steady state, and a call what contexts do.
func TestAllocs(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector allocates")
	}
	u := newUser(t, open(t, newNull(), log.Options{}))
	for _, n := range []int{1, 1000, 8000} {
		var swaps []store.Swap
		for range n {
			swaps = append(swaps, u.swap(streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}, make([]byte, 88)))
		}
		call := func() {
			for i := range swaps {
				swaps[i].Base, swaps[i].Tag = swaps[i].Tag, swaps[i].Tag+2
			}
			if _, err := u.st.Swap(context.Background(), swaps); err != nil {
				t.Fatal(err)
			}
		}
		u.must(swaps)
		call()
		if got := testing.AllocsPerRun(10, call); got > 6 {
			t.Errorf("%d swaps allocate %v times", n, got)
		}
	}
}

// What a store of a million streams takes is their records and some 48 bytes each, and it tells.
func TestMemoryPerStream(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector takes memory")
	}
	const streams, length = 200_000, 88
	u := newUser(t, open(t, newNull(), log.Options{}))
	swaps := make([]store.Swap, 1000)
	record := make([]byte, length)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range streams / len(swaps) {
		for i := range swaps {
			swaps[i] = u.swap(streamid.ID{Hi: rand.Uint64(), Lo: rand.Uint64()}, record)
		}
		if _, err := u.st.Swap(context.Background(), swaps); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / streams
	stats := u.st.Stats()
	t.Logf("%.1f bytes a stream with a record of %d; told %.1f", each, length, float64(stats.Bytes)/streams)
	if each > length+49 || stats.Streams != streams || float64(stats.Bytes)/streams < each-6 {
		t.Errorf("%.1f bytes a stream with a record of %d; told %+v", each, length, stats)
	}
}

func TestOptions(t *testing.T) {
	for _, row := range []struct {
		driver log.Driver
		opts   log.Options
		want   string
	}{
		{nil, log.Options{}, "driver"},
		{new(log.Memory), log.Options{Groups: 3}, "groups"},
		{new(log.Memory), log.Options{Groups: 512}, "groups"},
		{new(log.Memory), log.Options{Groups: -1}, "groups"},
		{new(log.Memory), log.Options{TTL: time.Millisecond}, "TTL"},
		{new(log.Memory), log.Options{TTL: -1}, "TTL"},
		{new(log.Memory), log.Options{Idle: -1}, "idle"},
		{new(log.Memory), log.Options{Timeout: -1}, "timeout"},
		{new(log.Memory), log.Options{Readers: -1}, "readers"},
		{new(log.Memory), log.Options{CommitInterval: -1}, "commit interval"},
		{new(log.Memory), log.Options{CommitPoints: -1}, "commit points"},
	} {
		if _, err := log.New(row.driver, row.opts); err == nil || !strings.HasPrefix(err.Error(), "log: "+row.want+":") {
			t.Errorf("%+v: error %v, want one of %s", row.opts, err, row.want)
		}
	}
	st := open(t, new(log.Memory), log.Options{})
	if interval, points := st.Pace(); interval != 0 || points != 0 {
		t.Errorf("by default it asks for %v and %d points", interval, points)
	}
	st = open(t, new(log.Memory), log.Options{CommitInterval: time.Second})
	if interval, points := st.Pace(); interval != time.Second || points != 1<<17 {
		t.Errorf("with an interval it asks for %v and %d points", interval, points)
	}
	if _, err := st.Lives(context.Background(), store.Life{}); err == nil {
		t.Error("a life without an ID is taken")
	}
	u := newUser(t, st)
	for _, swap := range []store.Swap{{Tag: 1, Record: []byte{}}, {Record: []byte("x")}} {
		if _, err := u.st.Swap(context.Background(), []store.Swap{swap}); err == nil {
			t.Errorf("%+v is taken", swap)
		}
	}
}

// told is an Observer.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (o *told) add(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, fmt.Sprintf(format, args...))
}

func (o *told) Swapped(_ context.Context, swaps []store.Swap, results []store.Result, _ time.Duration, conflicts int, err error) {
	o.add("swapped %d, %d results, %d conflicts, %v", len(swaps), len(results), conflicts, err)
}

func (o *told) SetAside(_ context.Context, moved bool, err error) {
	o.add("set aside %v, %v", moved, err)
}

func (o *told) Called(_ context.Context, c log.Call) {
	o.add("%v of %d, refused %d, bytes %v, whole %v, %v", c.Method, c.Logs, c.Refused, c.Bytes > 0, c.Whole, c.Err)
}

// An observer is told of each call.
func TestObserver(t *testing.T) {
	o := new(told)
	d := new(spy)
	u := newUser(t, open(t, d, log.Options{Groups: 2, Observer: o}))
	other := newUser(t, open(t, &d.Memory, log.Options{Groups: 2}))
	u.put([]byte("x"), u.id(0, 1))
	other.tags = u.tags
	other.put([]byte("y"), u.id(0, 1))
	u.put([]byte("z"), u.id(0, 2), u.id(1, 1))
	d.before = func(string) error { return errors.New("the network") }
	_, _ = u.st.Swap(context.Background(), []store.Swap{u.swap(u.id(1, 1), []byte("z"))})
	d.before = nil
	_ = u.st.SetAside(context.Background(), u.id(1, 1), []byte("z"))
	_ = u.st.Compact(context.Background())
	want := []string{
		"append of 2, refused 0, bytes true, whole false, <nil>",
		"append of 1, refused 0, bytes true, whole false, <nil>",
		"swapped 1, 1 results, 0 conflicts, <nil>",
		"append of 2, refused 1, bytes true, whole false, <nil>",
		"read of 1, refused 0, bytes true, whole false, <nil>",
		"append of 1, refused 0, bytes true, whole false, <nil>",
		"swapped 2, 2 results, 1 conflicts, <nil>",
		"append of 1, refused 0, bytes true, whole false, the network",
		"swapped 1, 0 results, 0 conflicts, log: swap: the network",
		"read of 1, refused 0, bytes false, whole false, <nil>",
		"append of 1, refused 0, bytes true, whole false, <nil>",
		"set aside true, <nil>",
		"compact of 1, refused 0, bytes true, whole false, <nil>",
		"compact of 1, refused 0, bytes true, whole false, <nil>",
	}
	if !slices.Equal(o.lines, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(o.lines, "\n"), strings.Join(want, "\n"))
	}
}

// raceEnabled reports whether the race detector is on.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// A call should have a stream once. If it has it twice, what is in memory is still what the log says, for this stream and for others: here the
// first swap frees the stream's place, and the second takes it for a new stream.
func TestStreamTwiceInACall(t *testing.T) {
	driver := new(log.Memory)
	u := newUser(t, open(t, driver, log.Options{Groups: 1}))
	a, b := u.id(0, 1), u.id(0, 2)
	short, long := bytes.Repeat([]byte{1}, 40), bytes.Repeat([]byte{2}, 400)
	u.put(short, a)
	u.must([]store.Swap{u.swap(a, long), u.swap(b, short), u.swap(a, short)})
	other := newUser(t, open(t, driver, log.Options{Groups: 1})) // reads the log
	for _, id := range []streamid.ID{a, b} {
		got, want := u.there(id), other.there(id)
		if got.Tag != u.tags[id] || got.Tag != want.Tag || !bytes.Equal(got.Record, short) || !bytes.Equal(want.Record, short) {
			t.Errorf("stream %v: tag %#x, record %x, and in the log tag %#x, record %x", id, got.Tag, got.Record, want.Tag, want.Record)
		}
	}
}
