// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"errors"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/shared"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// The errors of opening. Errors of a Config, DurableConfig or SharedConfig are others: they name the field.
var (
	// ErrVersion is returned for state that a newer version of this package has written. It is left as it is. Convert
	// returns it for a batch that has a stream with such a record in shared state.
	ErrVersion = table.ErrVersion
	// ErrOwner is returned for state that belongs to someone else: another owner, another seed, or another encoding of
	// identities. It is left as it is.
	ErrOwner = table.ErrOwner
)

// The errors of Convert. But for ErrReadOnly and ErrVersion the same batch may be handed in again.
var (
	// ErrReadOnly is returned for metrics that must not be changed.
	ErrReadOnly = errors.New("d2c: metrics are read-only: copy them first")
	// ErrClosed is returned after Close.
	ErrClosed = commit.ErrClosed
	// ErrContended is returned where other workers changed a stream of the batch each time it was about to be.
	ErrContended = shared.ErrContended
	// ErrOutstanding is returned where the shared store fails and SharedConfig.MaxOutstanding is reached.
	ErrOutstanding = shared.ErrOutstanding
)

// StoreError reports whether err comes from the store rather than from the batch: whatever comes next will fare no better
// until the store is well again.
func StoreError(err error) bool {
	return errors.As(err, new(commit.StoreError)) || errors.Is(err, ErrOutstanding)
}
