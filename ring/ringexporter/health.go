// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
)

// health reports the status of the exporter: a recoverable error while anything is wrong, OK after.
type health struct {
	host component.Host

	mu     sync.Mutex
	wrong  map[string]error // by what it is about
	closed bool
}

func newHealth(host component.Host) *health {
	return &health{host: host, wrong: map[string]error{}}
}

// report says that something is wrong or, with a nil error, that it no longer is. The status names everything that is wrong now,
// so it is reported whenever that set changes.
func (h *health) report(about string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, was := h.wrong[about]
	if err == nil {
		delete(h.wrong, about)
	} else {
		h.wrong[about] = err
	}
	if was == (err != nil) || h.closed {
		return
	}
	if len(h.wrong) == 0 {
		componentstatus.ReportStatus(h.host, componentstatus.NewEvent(componentstatus.StatusOK))
		return
	}
	all := make([]error, 0, len(h.wrong))
	for _, about := range slices.Sorted(maps.Keys(h.wrong)) {
		all = append(all, h.wrong[about])
	}
	componentstatus.ReportStatus(h.host, componentstatus.NewRecoverableErrorEvent(errors.Join(all...)))
}

// close ends reporting: a component that stops is no longer OK.
func (h *health) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}
