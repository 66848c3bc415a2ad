// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import "errors"

// The reasons why state cannot be read that are no damage: it is left as it is.
var (
	ErrVersion = errors.New("d2c: state was written by a newer version")
	ErrOwner   = errors.New("d2c: state belongs to another owner, seed or identity encoding")
)
