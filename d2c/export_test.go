// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import "context"

// Shards is the number of shards.
const Shards = shardCount

// Checkpoint writes the checkpoints of shards, of all if there are none, while no commit or checkpoint is under way.
func (c *Converter) Checkpoint(ctx context.Context, shards ...int) error {
	if len(shards) == 0 {
		for i := range shardCount {
			shards = append(shards, i)
		}
	}
	return c.commits.journal.checkpoint(ctx, c, shards)
}

// SetChunkSize sets the size of a chunk and returns a function that sets it back.
func SetChunkSize(n int) (restore func()) {
	was := chunkSize
	chunkSize = n
	return func() { chunkSize = was }
}
