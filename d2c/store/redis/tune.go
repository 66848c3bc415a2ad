// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// bufferSize is what a connection has for reading, and for writing. 1000 records of sums have 120 KB.
const bufferSize = 128 << 10

// Tune sets what a Store works best with: that deadlines of contexts count, that the client does not send all of a batch again where
// a Store sends what has failed, large buffers, and nothing that only newer servers know. It leaves alone addresses,
// credentials, and timeouts.
func Tune(o *goredis.UniversalOptions) {
	o.PipelinePoolSize = -1 // all we send are pipelines
	o.ReadBufferSize, o.WriteBufferSize = bufferSize, bufferSize
	o.MaxRetries, o.DialerRetries = -1, 1
	o.ContextTimeoutEnabled = true
	o.Protocol, o.DisableIdentity = 2, true // what RESP 3 adds is of no use here
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}
