// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Operation is a kind of request, for counting. Stores charge by it.
type Operation string

// The operations.
const (
	Put    Operation = "put"
	Get    Operation = "get"
	List   Operation = "list"
	Delete Operation = "delete" // of any number of objects
)

// bucket sends requests. It is safe for concurrent use.
type bucket struct {
	client   *awss3.Client
	name     string
	prefix   string
	attempt  time.Duration
	attempts int
	slots    chan struct{} // one for each request that may be under way
	observer Observer
	versions atomic.Bool // the bucket keeps versions, as an answer has told
}

// slowest is how many bytes a second a request may at least be expected to move.
const slowest = 1 << 20

// once sends a request, when there are not too many under way. size is how many bytes it moves at most.
func (b *bucket) once(ctx context.Context, op Operation, size uint64, send func(context.Context) (sent int, err error)) error {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.slots }()
	if err := ctx.Err(); err != nil {
		return err
	}
	started := time.Now()
	within, cancel := context.WithTimeout(ctx, b.attempt+time.Duration(size/slowest)*time.Second)
	defer cancel()
	sent, err := send(within)
	if b.observer != nil {
		// What a condition or a look-up says is an answer like others.
		told := err
		if told != nil && (conditional(err) || unchanged(err)) {
			told = nil
		}
		b.observer.Requested(ctx, op, sent, time.Since(started), told)
	}
	return err
}

// request sends a request, and again if it fails for a reason that may pass. maybe says that one that failed may have been done.
func (b *bucket) request(ctx context.Context, op Operation, size uint64, send func(context.Context) (int, error)) (maybe bool, err error) {
	for attempt := 1; ; attempt++ {
		failed := b.once(ctx, op, size, send)
		if failed == nil || err == nil || ctx.Err() == nil {
			err = failed // and not that the time for all is over: what was wrong before says more
		}
		if failed == nil || !mayPass(failed) {
			return maybe, err
		}
		maybe = maybe || unsure(failed)
		if attempt >= b.attempts || !pause(ctx, attempt) {
			return maybe, err
		}
	}
}

// pause waits for longer with each attempt, and reports whether there may be another.
func pause(ctx context.Context, attempt int) bool {
	const shortest, longest = 50 * time.Millisecond, 2 * time.Second
	d := min(shortest<<min(attempt, 10), longest)
	timer := time.NewTimer(d/2 + mathrand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// put writes an object. ifMatch is the ETag of what must be there, "*" that there must be none, empty if that does not matter. The
// checksum has the store refuse what it did not get as it was sent, and comes with the request, not after it: not all stores read a
// trailer. body is not to be changed any more, not even after an error.
func (b *bucket) put(ctx context.Context, key string, body []byte, ifMatch string) (etag string, maybe bool, err error) {
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)))
	maybe, err = b.request(ctx, Put, uint64(len(body)), func(ctx context.Context) (int, error) {
		in := &awss3.PutObjectInput{
			Bucket: &b.name, Key: &key, Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
			ChecksumCRC32C: &sum, ContentType: aws.String("application/octet-stream"),
		}
		switch ifMatch {
		case "":
		case "*":
			in.IfNoneMatch = &ifMatch
		default:
			in.IfMatch = &ifMatch
		}
		out, err := b.client.PutObject(ctx, in)
		if err != nil {
			return len(body), err
		}
		if v := aws.ToString(out.VersionId); v != "" && v != "null" {
			b.versions.Store(true)
		}
		etag = aws.ToString(out.ETag)
		return len(body), nil
	})
	return etag, maybe, err
}

// get reads an object of at most size bytes, as far as is known. Where it has that ETag still the error is unchanged, and where there is none it is absent.
func (b *bucket) get(ctx context.Context, key, etag string, size uint64) (body []byte, found string, err error) {
	_, err = b.request(ctx, Get, size, func(ctx context.Context) (int, error) {
		in := &awss3.GetObjectInput{Bucket: &b.name, Key: &key}
		if etag != "" {
			in.IfNoneMatch = &etag
		}
		out, err := b.client.GetObject(ctx, in)
		if err != nil {
			return 0, err
		}
		defer out.Body.Close()
		var buf bytes.Buffer
		if n := aws.ToInt64(out.ContentLength); n > 0 && n < 1<<30 {
			buf.Grow(int(n) + bytes.MinRead)
		}
		if _, err := io.Copy(&buf, out.Body); err != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("%w: %w", errContent, err)
			}
			return buf.Len(), err
		}
		if n := out.ContentLength; n != nil && *n != int64(buf.Len()) {
			return buf.Len(), errContent
		}
		body, found = buf.Bytes(), aws.ToString(out.ETag)
		if found == "" {
			return buf.Len(), errNoETag
		}
		return buf.Len(), nil
	})
	return body, found, err
}

// listed is an object as a list has it.
type listed struct {
	key      string
	modified time.Time
}

// list returns all objects under a prefix.
func (b *bucket) list(ctx context.Context, prefix string) (all []listed, err error) {
	for token := (*string)(nil); ; {
		var out *awss3.ListObjectsV2Output
		_, err := b.request(ctx, List, 0, func(ctx context.Context) (_ int, err error) {
			out, err = b.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix, ContinuationToken: token})
			return 0, err
		})
		if err != nil {
			return nil, err
		}
		for _, o := range out.Contents {
			if o.Key != nil && o.LastModified != nil && strings.HasPrefix(*o.Key, prefix) {
				all = append(all, listed{*o.Key, *o.LastModified})
			}
		}
		if token = out.NextContinuationToken; !aws.ToBool(out.IsTruncated) || token == nil {
			return all, nil
		}
	}
}

// remove deletes objects; there need not be any.
func (b *bucket) remove(ctx context.Context, keys ...string) error {
	const atOnce = 1000 // the most that S3 takes
	for part := range slices.Chunk(keys, atOnce) {
		if err := b.removeMany(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

func (b *bucket) removeMany(ctx context.Context, keys []string) error {
	if len(keys) > 1 {
		objects := make([]types.ObjectIdentifier, len(keys))
		for i := range keys {
			objects[i].Key = &keys[i]
		}
		var out *awss3.DeleteObjectsOutput
		_, err := b.request(ctx, Delete, 0, func(ctx context.Context) (_ int, err error) {
			out, err = b.client.DeleteObjects(ctx, &awss3.DeleteObjectsInput{
				Bucket: &b.name, Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(true)},
			})
			return 0, err
		})
		if err == nil && len(out.Errors) == 0 {
			return nil
		}
		if mayPass(err) || ctx.Err() != nil {
			return err
		}
		// Not all stores know this request, or what the client makes of it.
	}
	var errs []error
	for i := range keys {
		_, err := b.request(ctx, Delete, 0, func(ctx context.Context) (int, error) {
			_, err := b.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &b.name, Key: &keys[i]})
			return 0, err
		})
		if err != nil && !absent(err) {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// newObjectName returns one that nobody has used.
func newObjectName() (name objectName) {
	_, _ = rand.Read(name[:])
	return name
}

// escape returns a name as a part of a key: letters, digits, dots, hyphens and underscores are themselves, but for what is first if it
// is a dot or an underscore; so it is no path to somewhere else, and none of the names that begin with an underscore.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', i > 0 && (c == '.' || c == '_'):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "!%02X", c)
		}
	}
	return b.String()
}
