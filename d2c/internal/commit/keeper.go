// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import "context"

// Keeper makes what transactions change outlive the process. It is all in which durable and shared state differ.
type Keeper interface {
	// Keep folds tx and makes the changes outlive the process. After an error nothing of tx is given out, though any part of
	// it may have been kept. It is called by one goroutine at a time.
	Keep(ctx context.Context, tx *Tx) error
}

// StoreError is an error of the store, rather than of a batch.
type StoreError struct{ Err error }

// Error implements error.
func (e StoreError) Error() string { return e.Err.Error() }

// Unwrap returns the store's own error.
func (e StoreError) Unwrap() error { return e.Err }
