// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"context"
	"time"
)

// Keeper makes what transactions change outlive the process. Durable and shared state differ in nothing else.
type Keeper interface {
	// Keep folds tx and makes the changes outlive the process. After an error nothing of tx is given out, though any part of
	// it may have been kept. It is called by one goroutine at a time.
	Keep(ctx context.Context, tx *Tx) error
}

const (
	// MaxAhead is how far ahead of the clock a time given out counts where it would hold up others: one point dated in the far
	// future must not.
	MaxAhead = 5 * time.Minute
	// RetryHorizon is how long ago a delta can have been sent that comes again; what is older is of a replay, and new.
	RetryHorizon = 6 * time.Hour
)

// StoreError is an error of the store, rather than of a batch.
type StoreError struct{ Err error }

// Error implements error.
func (e StoreError) Error() string { return e.Err.Error() }

// Unwrap returns the store's own error.
func (e StoreError) Unwrap() error { return e.Err }
