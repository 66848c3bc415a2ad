// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgresstate

import (
	"github.com/deltaring/deltaring/processor/state/internal/logstate"
	"github.com/deltaring/deltaring/processor/state/postgresstate/internal/metadata"
)

func instruments(b *metadata.TelemetryBuilder) logstate.Instruments {
	return logstate.Instruments{
		Duration:  b.PostgresStateSwapDuration,
		Records:   b.PostgresStateRecords,
		Errors:    b.PostgresStateErrors,
		Conflicts: b.PostgresStateConflicts,
		Bytes:     b.PostgresStateBytes,
		Aside:     b.PostgresStateAside,
	}
}
