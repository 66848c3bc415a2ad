// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"strings"
	"time"
)

const (
	// What is to be deleted waits until that many can be in one request, or that many times its time is over.
	enoughGarbage = 64
	patience      = 6
	// maxGarbage bounds what is remembered of it.
	maxGarbage = 10_000
)

// collect deletes what no head names any more. What it cannot delete it tries again with the next snapshot; the Observer knows. The caller
// holds l.compacting.
func (d *Driver) collect(ctx context.Context, n int, l *logHead) {
	now := time.Now()
	if l.swept.IsZero() || now.Sub(l.swept) >= d.leftover {
		if d.sweep(ctx, n, l) == nil {
			l.swept = now
		}
	}
	if l.lock(ctx) != nil {
		return
	}
	var keys []string
	for _, g := range l.garbage {
		if now.Sub(g.since) < d.grace {
			break
		}
		keys = append(keys, d.logKey(n)+g.key)
	}
	due := len(keys) >= enoughGarbage || len(keys) > 0 && now.Sub(l.garbage[0].since) >= patience*d.grace
	var taken []garbage
	if due {
		taken, l.garbage = l.garbage[:len(keys):len(keys)], l.garbage[len(keys):]
	}
	l.unlock()
	if due && d.bucket.remove(ctx, keys...) != nil {
		_ = l.lock(context.Background()) // what holds it has a time limit
		l.garbage = append(taken, l.garbage...)
		l.unlock()
	}
}

// sweep deletes what a crash, or a request without an answer, has left: objects that the head does not name, and that are old.
//
// That they are old proves nothing. A process that slept may wake up and put a head that names one of them. So the head is put anew
// before anything is deleted: whoever knows the one before fails, and learns of this one. And whoever learns of it names no object
// that was written before, because of the rule that a head names only what was written when the head that it takes the place of was
// known already.
func (d *Driver) sweep(ctx context.Context, n int, l *logHead) error {
	all, err := d.bucket.list(ctx, d.logKey(n))
	if err != nil {
		return err
	}
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if err := d.refresh(ctx, n, l); err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, key := range l.head.named() {
		kept[d.logKey(n)+key] = true
	}
	for _, g := range l.garbage {
		kept[d.logKey(n)+g.key] = true // they have a time of their own
	}
	if l.pending != nil {
		kept[d.logKey(n)+l.pending.snapshot.key()] = true // the next head will name it
	}
	var keys []string
	for _, o := range all {
		ours := strings.HasSuffix(o.key, segmentSuffix) || strings.HasSuffix(o.key, snapshotSuffix)
		if ours && !kept[o.key] && time.Since(o.modified) >= d.leftover {
			keys = append(keys, o.key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if _, _, err := d.replace(ctx, n, l, l.head, 0, nil); err != nil {
		return err
	}
	return d.bucket.remove(ctx, keys...)
}
