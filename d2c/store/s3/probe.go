// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// try tries the store, once with success.
func (d *Driver) try(ctx context.Context) error {
	if err := d.trying.lock(ctx); err != nil {
		return d.bucket.explain("probe", err)
	}
	defer d.trying.unlock()
	if d.fit {
		return nil
	}
	if err := d.Probe(ctx); err != nil {
		return err
	}
	d.fit = true
	return nil
}

// Probe does what the Driver does, with an object of its own, which it deletes: eight requests. It returns the error of the
// first that fails. A store that ignores a condition is refused, because two writers could overwrite each other's entries.
// Probe leaves logs alone, and may be called at any time.
func (d *Driver) Probe(ctx context.Context) error {
	if err := d.probe(ctx); err != nil {
		return d.bucket.explain("probe", err)
	}
	return nil
}

func (d *Driver) probe(ctx context.Context) (err error) {
	key := d.bucket.prefix + "/_probe/" + rand.Text()
	// Who may not list a bucket is not told that there is no object, but that there may be one.
	if _, _, err := d.bucket.get(ctx, key, "", 0); err == nil {
		return errStale
	} else if !absent(err) {
		return err
	}
	first, second := probeBody(), probeBody()
	etag, maybe, err := d.bucket.put(ctx, key, first, "*")
	if err != nil && !maybe {
		return err // also if it says that there is one: there is none
	}
	defer func() {
		// Whatever came of it. A probe that is over must not leave its object.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.bucket.attempt)
		defer cancel()
		if removed := d.bucket.remove(ctx, key); err == nil {
			err = removed
		}
	}()
	switch {
	case conditional(err):
		return fmt.Errorf("no answer came in time: %w", err)
	case err != nil:
		return err
	case etag == "":
		return errNoETag
	}
	if err := d.mustFail(ctx, key, second, "*"); err != nil {
		return err
	}
	now, maybe, err := d.bucket.put(ctx, key, second, etag)
	switch {
	case conditional(err) && maybe:
		return fmt.Errorf("no answer came in time: %w", err)
	case conditional(err):
		return fmt.Errorf("%w: it does not take the ETag that it has told (%w)", errConditions, err)
	case err != nil:
		return err
	case now == "" || now == etag:
		return errNoETag
	}
	if err := d.mustFail(ctx, key, first, etag); err != nil {
		return err
	}
	body, found, err := d.bucket.get(ctx, key, "", 0)
	switch {
	case absent(err), err == nil && !bytes.Equal(body, second):
		return errStale
	case err != nil:
		return err
	case found != now:
		return fmt.Errorf("%w: it tells one ETag to who puts an object, and another to who gets it", errConditions)
	}
	return nil
}

// mustFail puts an object under a condition that does not hold.
func (d *Driver) mustFail(ctx context.Context, key string, body []byte, ifMatch string) error {
	switch _, _, err := d.bucket.put(ctx, key, body, ifMatch); {
	case err == nil:
		return errConditions
	case !conditional(err):
		return err
	}
	return nil
}

// probeBody returns what no other probe has.
func probeBody() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return append(time.Now().UTC().AppendFormat([]byte("d2c probe, may be deleted; "), time.RFC3339), b...)
}
