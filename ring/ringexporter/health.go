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

	mu    sync.Mutex
	wrong map[string]error // by what it is about
}

func newHealth(host component.Host) *health {
	return &health{host: host, wrong: map[string]error{}}
}

// report says that something is wrong, or with a nil error that it is no longer.
func (h *health) report(about string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := len(h.wrong)
	if err == nil {
		delete(h.wrong, about)
	} else {
		h.wrong[about] = err
	}
	switch {
	case len(h.wrong) > was:
		all := make([]error, 0, len(h.wrong))
		for _, about := range slices.Sorted(maps.Keys(h.wrong)) {
			all = append(all, h.wrong[about])
		}
		componentstatus.ReportStatus(h.host, componentstatus.NewRecoverableErrorEvent(errors.Join(all...)))
	case len(h.wrong) == 0 && was > 0:
		componentstatus.ReportStatus(h.host, componentstatus.NewEvent(componentstatus.StatusOK))
	}
}
