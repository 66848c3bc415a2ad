// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/deltaring/deltaring/d2c/store/log"
	"github.com/deltaring/deltaring/d2c/store/s3/s3test"
)

// bench is a server, a proxy before it, and a driver that goes through it.
type bench struct {
	t      *testing.T
	server *s3test.Server
	proxy  *s3test.Proxy
	d      *Driver
	end    log.Position
	data   []string // of the entries
}

func newBench(t *testing.T, change ...func(*Options)) *bench {
	t.Helper()
	b := &bench{t: t, server: s3test.Start(t)}
	b.proxy = s3test.NewProxy(t, b.server.URL)
	b.d = open(t, b.proxy.URL, change...)
	if err := b.d.try(background); err != nil {
		t.Fatal(err)
	}
	b.proxy.Take()
	return b
}

// another returns a driver with the same logs that meets no faults.
func (b *bench) another() *Driver { return open(b.t, b.server.URL) }

func (b *bench) append(d *Driver, data string) (bool, error) {
	a := log.Append{After: b.end, ID: rand.Uint64() | 1, Entry: []byte(data)}
	done, err := d.Append(background, []log.Append{a})
	if err != nil {
		return false, err
	}
	if done[0] {
		b.end = log.Position{Number: a.After.Number + 1, ID: a.ID}
		b.data = append(b.data, data)
	}
	return done[0], nil
}

func (b *bench) must(d *Driver, data string) {
	b.t.Helper()
	if done, err := b.append(d, data); err != nil || !done {
		b.t.Fatalf("appending %.20q: done %v, error %v", data, done, err)
	}
}

// whole fails unless the log has just what was appended.
func (b *bench) whole() {
	b.t.Helper()
	tail, err := b.another().Read(background, 0, log.Position{})
	if err != nil {
		b.t.Fatal(err)
	}
	var got []string
	if tail.Snapshot != nil {
		got = strings.Split(string(tail.Snapshot), "\n")
	}
	for _, e := range tail.Entries {
		got = append(got, string(e.Data))
	}
	if fmt.Sprintf("%.50q", got) != fmt.Sprintf("%.50q", b.data) {
		b.t.Fatalf("the log has %.50q, want %.50q", got, b.data)
	}
	if tail.End() != b.end {
		b.t.Fatalf("the log ends at %v, want %v", tail.End(), b.end)
	}
}

// snapshot is the log in short.
func (b *bench) compact(d *Driver) error {
	return d.Compact(background, 0, b.end, []byte(strings.Join(b.data, "\n")))
}

// puts has the n-th requests that put a head meet faults, one after the other; what comes after goes through.
func puts(faults ...s3test.Fault) func(*http.Request) s3test.Fault {
	var n atomic.Int64
	return func(r *http.Request) s3test.Fault {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/"+headKey) {
			return s3test.Fault{}
		}
		if i := int(n.Add(1)) - 1; i < len(faults) {
			return faults[i]
		}
		return s3test.Fault{}
	}
}

func status(code int, name string) s3test.Fault { return s3test.Fault{Status: code, Code: name} }

var (
	slowDown    = status(503, "SlowDown")
	internal    = status(500, "InternalError")
	conflict    = status(409, "ConditionalRequestConflict")
	lostRequest = s3test.Fault{Lose: s3test.Request}
	lostAnswer  = s3test.Fault{Lose: s3test.Answer}
	late        = s3test.Fault{Lose: s3test.Late}
	silence     = s3test.Fault{Lose: s3test.Silence}
)

// Whatever becomes of requests, an append is done once, or not.
func TestAppendThroughFaults(t *testing.T) {
	for name, faults := range map[string][]s3test.Fault{
		"throttled":                       {slowDown, slowDown},
		"an error":                        {internal},
		"two requests at once":            {conflict, conflict},
		"a wrong clock":                   {status(403, "RequestTimeTooSkewed")},
		"a lost request":                  {lostRequest},
		"a lost answer":                   {lostAnswer},
		"a lost answer, twice":            {lostAnswer, lostAnswer},
		"a lost answer, then an error":    {lostAnswer, internal},
		"a lost answer, then a conflict":  {lostAnswer, conflict},
		"it arrives late":                 {late},
		"an answer that does not come":    {silence},
		"an answer of which half comes":   {{Lose: s3test.Half}},
		"an error, though it was done":    {{Answer: func(http.Header, []byte) []byte { return nil }, Lose: s3test.Answer}},
		"all of it, one after the other":  {slowDown, lostRequest, lostAnswer},
		"late, and then it arrives again": {late, late},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *Options) { o.AttemptTimeout = 300 * time.Millisecond })
			for i := range 3 {
				b.proxy.Fail(puts(faults...))
				b.must(b.d, fmt.Sprint("entry ", i))
				b.must(b.d, fmt.Sprint("and one more ", i)) // where the log ends is known
			}
			b.proxy.Fail(nil)
			time.Sleep(2 * s3test.LateBy) // what is late must do no harm
			b.whole()
		})
	}
}

// An append that is not done is one that another was faster with, even if its first answer was lost.
func TestAppendLosesThroughFaults(t *testing.T) {
	for name, fault := range map[string]s3test.Fault{"a lost request": lostRequest, "an error": internal, "a conflict": conflict} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			other := b.another()
			b.must(b.d, "first")
			var once sync.Once
			b.proxy.Fail(func(*http.Request) (f s3test.Fault) {
				once.Do(func() {
					b.must(other, "second")
					b.must(other, "third")
					f = fault
				})
				return f
			})
			if done, err := b.append(b.d, "wrong"); err != nil || done {
				t.Fatalf("done %v, error %v", done, err)
			}
			b.whole()
			b.must(b.d, "fourth")
			b.whole()
		})
	}
}

// If it cannot be told whether an entry is in, that is an error and no guess.
func TestCannotBeTold(t *testing.T) {
	b := newBench(t)
	other := b.another()
	b.must(b.d, "first")
	var once sync.Once
	b.proxy.Fail(func(r *http.Request) (f s3test.Fault) {
		once.Do(func() {
			// Another appends twice and makes a snapshot of it before ours arrives again.
			b.must(other, "second")
			b.must(other, "third")
			if err := b.compact(other); err != nil {
				t.Error(err)
			}
			f = lostRequest
		})
		return f
	})
	a := log.Append{After: b.end, ID: 7, Entry: []byte("wrong")}
	if _, err := b.d.Append(background, []log.Append{a}); !errors.Is(err, errUnknown) || ReasonOf(err) != Other {
		t.Fatalf("error %v", err)
	}
	b.must(b.d, "fourth")
	b.whole()
}

// After an error the head is read again, and what came of it is found.
func TestAfterAnError(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxAttempts = 1 })
	b.must(b.d, "first")
	b.proxy.Fail(puts(lostAnswer))
	a := log.Append{After: b.end, ID: 7, Entry: []byte("second")}
	if _, err := b.d.Append(background, []log.Append{a}); err == nil {
		t.Fatal("no error")
	}
	tail, err := b.d.Read(background, 0, b.end)
	if err != nil || len(tail.Entries) != 1 || tail.Entries[0].ID != 7 {
		t.Fatalf("%v, error %v", tail, err)
	}
	b.end, b.data = tail.End(), append(b.data, "second")
	b.must(b.d, "third")
	b.proxy.Fail(puts(late)) // which arrives after the error, but before the next is done, or never
	a = log.Append{After: b.end, ID: 9, Entry: []byte("perhaps")}
	if _, err := b.d.Append(background, []log.Append{a}); err == nil {
		t.Fatal("no error")
	}
	if done, err := b.append(b.d, "fourth"); err != nil {
		t.Fatal(err)
	} else if !done { // it was before this one
		tail, err := b.d.Read(background, 0, b.end)
		if err != nil || len(tail.Entries) != 1 || tail.Entries[0].ID != 9 {
			t.Fatalf("%v, error %v", tail, err)
		}
		b.end, b.data = tail.End(), append(b.data, "perhaps")
		b.must(b.d, "fourth")
	}
	time.Sleep(2 * s3test.LateBy)
	b.whole()
}

// A steady append is one request, and a check is one.
func TestRequestsPerAppend(t *testing.T) {
	b := newBench(t)
	other := b.another()
	const logs = 5
	ends := make([]log.Position, logs)
	commit := func(d *Driver) map[string]int {
		t.Helper()
		appends := make([]log.Append, logs)
		for i := range appends {
			appends[i] = log.Append{Log: i, After: ends[i], ID: rand.Uint64() | 1, Entry: bytes.Repeat([]byte("x"), 1000)}
			ends[i] = log.Position{Number: ends[i].Number + 1, ID: appends[i].ID}
		}
		done, err := d.Append(background, appends)
		if err != nil {
			t.Fatal(err)
		}
		for _, ok := range done {
			if !ok {
				t.Fatal("not done")
			}
		}
		return b.proxy.Take()
	}
	commit(b.d)
	for range 20 {
		if n := commit(b.d); n["PUT"] != logs || len(n) != 1 {
			t.Fatalf("a commit to %d logs is %v", logs, n)
		}
	}
	if _, err := b.d.Append(background, []log.Append{{Log: 0, After: ends[0]}}); err != nil {
		t.Fatal(err)
	}
	if n := b.proxy.Take(); n["GET"] != 1 || len(n) != 1 {
		t.Errorf("a check is %v", n)
	}
	commit(other)
	// Where another has appended a head is read once, and from then on none.
	if n := commit(b.d); n["PUT"] != logs || n["GET"] != logs {
		t.Errorf("after another's commit, it is %v", n)
	}
	if n := commit(b.d); n["PUT"] != logs || len(n) != 1 {
		t.Errorf("and then %v", n)
	}
}

// Segments and snapshots that are read meanwhile may be gone: the reader looks at the head again.
func TestReadWhileCompacted(t *testing.T) {
	b := newBench(t)
	other := b.another()
	other.grace = 0
	fill := func() {
		for range 2*tailEntries + 1 {
			b.must(other, strings.Repeat("x", tailSize))
		}
	}
	fill()
	var once sync.Once
	b.proxy.Fail(func(r *http.Request) s3test.Fault {
		if strings.HasSuffix(r.URL.Path, segmentSuffix) {
			once.Do(func() {
				if err := b.compact(other); err != nil {
					t.Error(err)
				}
				fill()
			})
		}
		return s3test.Fault{}
	})
	tail, err := b.d.Read(background, 0, log.Position{})
	if err != nil {
		t.Fatal(err)
	}
	if tail.End() != b.end || tail.Snapshot == nil {
		t.Errorf("it is read up to %v, want %v", tail.End(), b.end)
	}
	b.whole()
}

// What is read is whole, or it is an error.
func TestHalfAnObject(t *testing.T) {
	b := newBench(t)
	for range 2*tailEntries + 1 {
		b.must(b.d, strings.Repeat("x", tailSize))
	}
	var n atomic.Int64
	b.proxy.Fail(func(r *http.Request) s3test.Fault {
		if r.Method == http.MethodGet && n.Add(1)%2 == 1 {
			return s3test.Fault{Lose: s3test.Half}
		}
		return s3test.Fault{}
	})
	d := open(t, b.proxy.URL)
	d.fit = true
	tail, err := d.Read(background, 0, log.Position{})
	if err != nil || tail.End() != b.end {
		t.Errorf("it is read up to %v, want %v, error %v", tail.End(), b.end, err)
	}
	// A shorter answer that claims to be whole.
	b.proxy.Fail(func(r *http.Request) s3test.Fault {
		if strings.HasSuffix(r.URL.Path, segmentSuffix) {
			return s3test.Fault{Answer: func(_ http.Header, body []byte) []byte { return body[:len(body)-1] }}
		}
		return s3test.Fault{}
	})
	if _, err := open(t, b.proxy.URL).Read(background, 0, log.Position{}); !errors.Is(err, errDamaged) || ReasonOf(err) != Damaged {
		t.Errorf("a segment without its last byte: error %v", err)
	}
}

func TestDamage(t *testing.T) {
	b := newBench(t)
	admin := b.server.Admin()
	put := func(key string, body []byte) {
		t.Helper()
		if _, err := admin.PutObject(background, &awss3.PutObjectInput{
			Bucket: aws.String(s3test.Bucket), Key: &key, Body: bytes.NewReader(body),
		}); err != nil {
			t.Fatal(err)
		}
	}
	fails := func(n int, want error, says ...string) {
		t.Helper()
		_, err := b.another().Read(background, n, log.Position{})
		if !errors.Is(err, want) || ReasonOf(err) != Damaged {
			t.Errorf("error %v, want %v", err, want)
			return
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("error %v, want one with %q", err, s)
			}
		}
		if done, err := b.another().Append(background, []log.Append{{Log: n, ID: 1, Entry: []byte("x")}}); err == nil && done[0] {
			t.Error("an append is done")
		}
	}
	put("d2c/d2c/1/head", []byte("something else"))
	fails(1, errDamaged, "d2c/d2c/1/head", s3test.Bucket, "something else")
	newer, _ := new(head).encode(0, nil)
	newer[len(headMagic)] = 9
	put("d2c/d2c/2/head", newer)
	fails(2, errNewer, "d2c/d2c/2/head", "newer version", "update")

	b.must(b.d, "first")
	if err := b.compact(b.d); err != nil {
		t.Fatal(err)
	}
	for _, key := range b.server.Objects() {
		if strings.HasSuffix(key, snapshotSuffix) {
			put(key, []byte("something else"))
			fails(0, errDamaged, key)
			if err := b.d.bucket.remove(background, key); err != nil {
				t.Fatal(err)
			}
			fails(0, errMissing, key, "deleted")
			return
		}
	}
	t.Error("there is no snapshot")
}

// Stores that do not do what this stands on are refused before anything is lost.
func TestUnfitStores(t *testing.T) {
	server := s3test.Start(t)
	strip := func(names ...string) s3test.Fault { return s3test.Fault{Change: s3test.Without(names...)} }
	for name, c := range map[string]struct {
		fault func(r *http.Request) s3test.Fault
		want  error
	}{
		"no If-None-Match": {func(r *http.Request) s3test.Fault { return strip("If-None-Match") }, errConditions},
		"no If-Match":      {func(r *http.Request) s3test.Fault { return strip("If-Match") }, errConditions},
		"neither":          {func(r *http.Request) s3test.Fault { return strip("If-Match", "If-None-Match") }, errConditions},
		"it says so": {func(r *http.Request) s3test.Fault {
			if r.Header.Get("If-Match") != "" {
				return status(http.StatusNotImplemented, "NotImplemented")
			}
			return s3test.Fault{}
		}, errConditions},
		"no ETag": {func(r *http.Request) s3test.Fault {
			return s3test.Fault{Answer: func(h http.Header, b []byte) []byte { h.Del("ETag"); return b }}
		}, errNoETag},
		"ETags of its own": {func(r *http.Request) s3test.Fault {
			if r.Method != http.MethodPut {
				return s3test.Fault{}
			}
			return s3test.Fault{Answer: func(h http.Header, b []byte) []byte { h.Set("ETag", `"0123456789abcdef0123456789abcdef"`); return b }}
		}, errConditions},
		"a cache": {func(r *http.Request) s3test.Fault {
			if r.Method != http.MethodGet {
				return s3test.Fault{}
			}
			return status(404, "NoSuchKey")
		}, errStale},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := s3test.NewProxy(t, server.URL)
			proxy.Fail(c.fault)
			d := open(t, proxy.URL)
			for range 2 {
				done, err := d.Append(background, []log.Append{{ID: 1, Entry: []byte("x")}})
				if !errors.Is(err, c.want) || ReasonOf(err) != Unfit || done != nil {
					t.Fatalf("done %v, error %v, want %v", done, err, c.want)
				}
			}
			if _, err := d.Read(background, 0, log.Position{}); !errors.Is(err, c.want) {
				t.Errorf("Read: error %v", err)
			}
			if err := d.Compact(background, 0, log.Position{Number: 1, ID: 1}, nil); !errors.Is(err, c.want) {
				t.Errorf("Compact: error %v", err)
			}
		})
	}
	for _, key := range server.Objects() {
		if !strings.Contains(key, "_probe") {
			t.Errorf("%s was written", key)
		}
	}
}

// A probe cleans up, and its own faults are no verdict.
func TestProbe(t *testing.T) {
	b := newBench(t)
	if err := b.d.Probe(background); err != nil {
		t.Fatal(err)
	}
	if n := b.proxy.Take(); n["PUT"] != 4 || n["GET"] != 2 || n["DELETE"] != 1 {
		t.Errorf("a probe is %v", n)
	}
	for i := range 7 {
		var n atomic.Int64
		b.proxy.Fail(func(r *http.Request) s3test.Fault {
			if n.Add(1) == int64(i+1) {
				return lostAnswer
			}
			return s3test.Fault{}
		})
		if err := b.d.Probe(background); ReasonOf(err) == Unfit {
			t.Errorf("the answer to request %d is lost: error %v", i, err)
		}
	}
	b.proxy.Fail(nil)
	if keys := b.server.Objects(); len(keys) != 0 {
		t.Errorf("%v are left", keys)
	}
}

const secret = s3test.SecretKey

func TestErrors(t *testing.T) {
	server := s3test.Start(t)
	fail := func(f s3test.Fault) func(*http.Request) s3test.Fault {
		return func(*http.Request) s3test.Fault { return f }
	}
	region := http.Header{"X-Amz-Bucket-Region": {"eu-central-1"}}
	for _, c := range []struct {
		name   string
		fault  func(*http.Request) s3test.Fault
		opts   func(*Options)
		client func(*awss3.Options)
		reason Reason
		says   string
	}{
		{"no bucket", nil, func(o *Options) { o.Bucket = "nowhere" }, nil, Bucket, "there is no such bucket"},
		{"another region", fail(s3test.Fault{Status: 301, Code: "PermanentRedirect", Header: region}), nil, nil, Bucket, "the bucket is in region eu-central-1"},
		{"another region, and none is said", fail(status(301, "PermanentRedirect")), nil, nil, Bucket, "another region"},
		{"a signature for another region", fail(status(400, "AuthorizationHeaderMalformed")), nil, nil, Bucket, "another region"},
		{"forbidden", fail(status(403, "AccessDenied")), nil, nil, Credentials, "s3:ListBucket"},
		{"wrong secret", nil, nil, func(o *awss3.Options) {
			o.Credentials = credentials.NewStaticCredentialsProvider(s3test.AccessKey, secret+"x", "")
		}, Credentials, "does not accept the credentials"},
		{"unknown key", nil, nil, func(o *awss3.Options) {
			o.Credentials = credentials.NewStaticCredentialsProvider("nobody", secret, "")
		}, Credentials, "does not accept the credentials"},
		{"no credentials", nil, nil, func(o *awss3.Options) {
			o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, errors.New("none") })
		}, Credentials, "there are no credentials"},
		{"a token of yesterday", fail(status(400, "ExpiredToken")), nil, nil, Credentials, "does not accept the credentials"},
		{"a wrong clock", fail(status(403, "RequestTimeTooSkewed")), nil, nil, Other, "the clock of this machine"},
		{"throttled", fail(slowDown), nil, nil, Throttled, "fewer requests"},
		{"too many requests", fail(status(429, "TooManyRequests")), nil, nil, Throttled, "fewer requests"},
		{"an error", fail(internal), nil, nil, Unreachable, "InternalError"},
		{"lost", fail(lostAnswer), nil, nil, Unreachable, ""},
		{"silence", fail(silence), nil, nil, Unreachable, "deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy := s3test.NewProxy(t, server.URL)
			proxy.Fail(c.fault)
			d := open(t, proxy.URL, func(o *Options) {
				o.AttemptTimeout, o.MaxAttempts = 100*time.Millisecond, 2
				if c.opts != nil {
					c.opts(o)
				}
			})
			if c.client != nil {
				options := d.bucket.client.Options()
				c.client(&options)
				d.bucket.client = awss3.New(options)
			}
			_, err := d.Read(background, 0, log.Position{})
			if err == nil || ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.says) {
				t.Errorf("reason %s, error %v; want %s, %q", ReasonOf(err), err, c.reason, c.says)
			}
			if mistake := (c.reason == Credentials || c.reason == Bucket) && c.name != "no credentials"; Mistake(err) != mistake {
				t.Errorf("a mistake: %v", !mistake)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), s3test.AccessKey)) {
				t.Errorf("a secret is in %v", err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "s3 bucket "+d.bucket.name+": ") {
				t.Errorf("error %v does not say where", err)
			}
		})
	}
}

// These permissions are enough, and without any of them the probe says so.
func TestPermissions(t *testing.T) {
	server := s3test.Start(t)
	server.AddUser("worker", secret)
	d := open(t, server.URL)
	options := d.bucket.client.Options()
	options.Credentials = credentials.NewStaticCredentialsProvider("worker", secret, "")
	d.bucket.client = awss3.New(options)
	grant := func(object string, bucket string) {
		t.Helper()
		policy := fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [
			{"Effect": "Allow", "Principal": {"AWS": ["worker"]}, "Action": [%[1]s], "Resource": ["arn:aws:s3:::%[3]s/d2c/*"]},
			{"Effect": "Allow", "Principal": {"AWS": ["worker"]}, "Action": [%[2]s], "Resource": ["arn:aws:s3:::%[3]s"]}]}`, object, bucket, s3test.Bucket)
		if _, err := server.Admin().PutBucketPolicy(background, &awss3.PutBucketPolicyInput{
			Bucket: aws.String(s3test.Bucket), Policy: &policy,
		}); err != nil {
			t.Fatal(err)
		}
	}
	forbidden := func(what string) {
		t.Helper()
		err := d.Probe(background)
		if err == nil || ReasonOf(err) != Credentials || !Mistake(err) || !strings.Contains(err.Error(), "a permission is missing") {
			t.Errorf("%s: error %v", what, err)
		}
	}
	forbidden("a bucket of others")
	const list = `"s3:ListBucket"`
	grant(`"s3:GetObject", "s3:PutObject"`, list)
	forbidden("without DeleteObject")
	grant(`"s3:GetObject", "s3:DeleteObject"`, list)
	forbidden("without PutObject")
	grant(`"s3:PutObject", "s3:DeleteObject"`, list)
	forbidden("without GetObject")
	grant(`"s3:GetObject", "s3:PutObject", "s3:DeleteObject"`, list)
	d.leftover, d.grace, d.tailSize, d.tailEntries = 0, 0, 10, 1
	b := &bench{t: t, server: server, d: d}
	for range 5 {
		b.must(d, "an entry of some length")
		if err := b.compact(d); err != nil {
			t.Fatal(err)
		}
	}
	if keys := server.Objects(); len(keys) > 3 {
		t.Errorf("what is not needed is not deleted: %v", keys)
	}
}

func TestStoreIsAway(t *testing.T) {
	server := s3test.Start(t)
	d := open(t, server.URL)
	server.Stop()
	if _, err := d.Read(background, 0, log.Position{}); ReasonOf(err) != Unreachable {
		t.Errorf("error %v", err)
	}
	server.Start()
	if _, err := d.Read(background, 0, log.Position{}); err != nil {
		t.Error(err)
	}
}
