// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"errors"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/shared"
	"github.com/deltaring/deltaring/d2c/internal/table"
)

// The errors of opening. Errors about a field of Config, DurableConfig or SharedConfig are not among them: they name the
// field.
var (
	// ErrVersion is returned for state written by a newer version of this package. The state is left unchanged. Convert
	// returns it for a batch with a stream that has such a record in shared state.
	ErrVersion = table.ErrVersion
	// ErrOwner is returned for state with another owner, another seed, or another encoding of identities. The state is left
	// unchanged.
	ErrOwner = table.ErrOwner
)

// The errors of Convert. After any of them except ErrReadOnly and ErrVersion the caller may pass the same batch again.
var (
	// ErrReadOnly is returned for read-only metrics, which Convert cannot change in place.
	ErrReadOnly = errors.New("d2c: metrics are read-only: copy them first")
	// ErrClosed is returned after Close.
	ErrClosed = commit.ErrClosed
	// ErrContended is returned if other workers changed a stream of the batch at every attempt to store it.
	ErrContended = shared.ErrContended
	// ErrOutstanding is returned if the shared store fails and SharedConfig.MaxOutstanding is reached.
	ErrOutstanding = shared.ErrOutstanding
)

// StoreError reports whether err comes from the store rather than from the batch. Other batches will fail in the same way
// until the store recovers.
func StoreError(err error) bool {
	return errors.As(err, new(commit.StoreError)) || errors.Is(err, ErrOutstanding)
}
