// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/deltaring/deltaring/ring/resolve"
)

// follow makes the members what a resolver finds, until ctx is done.
func (e *ringExporter[B]) follow(ctx context.Context, r resolve.Resolver) {
	apply := func(list []resolve.Member) error {
		return e.ejector.resolved(context.WithoutCancel(ctx), endpointsOf(list)) // members outlive ctx
	}
	n := notes{logger: e.set.Logger, health: e.shared.health}
	r.Follow(ctx, apply, func(report resolve.Report) {
		e.tel.looked(ctx, report.Outcome)
		n.take(report)
	})
}

// notes holds what was logged of lookups: only what differs is logged.
type notes struct {
	logger   *zap.Logger
	health   *health
	last     resolve.Outcome // of the last lookup
	resolved bool            // a lookup has brought members
	problems []string        // of the last lookup that found members
}

// maxProblems bounds how many problems of one list are logged: there can be as many as members.
const maxProblems = 5

func (n *notes) take(r resolve.Report) {
	if r.Err == nil {
		n.takeProblems(r.Problems)
	}
	if r.Outcome == n.last {
		return
	}
	switch {
	case r.Err == nil && !n.resolved: // apply has logged them
	case r.Err == nil:
		n.logger.Info("lookups bring members again")
	case r.Unknown:
		n.logger.Warn("the first lookup brought no members, so none are known yet", zap.Stringer("outcome", r.Outcome), zap.Error(r.Err))
	default:
		n.logger.Warn("a lookup brought no members, the last good ones are kept", zap.Stringer("outcome", r.Outcome), zap.Error(r.Err))
	}
	// What is wrong now is reported before what was wrong is withdrawn, so that the status is not OK in between.
	if r.Err != nil {
		n.health.report(n.about(r.Outcome), fmt.Errorf("resolver: %s since %s: %w", r.Outcome, r.Since.UTC().Format(time.RFC3339), r.Err))
	}
	if n.last != resolve.Found {
		n.health.report(n.about(n.last), nil)
	}
	n.last = r.Outcome
	n.resolved = n.resolved || r.Err == nil
}

func (*notes) about(o resolve.Outcome) string { return "resolver: " + o.String() }

// takeProblems reports what is wrong with lists that are usable nonetheless.
func (n *notes) takeProblems(problems []error) {
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.Error()
	}
	slices.Sort(texts)
	if slices.Equal(texts, n.problems) {
		return
	}
	n.problems = texts
	if len(texts) == 0 {
		n.logger.Info("nothing is wrong any more with what lookups find")
		return
	}
	n.logger.Warn("members were found, but not all is well with them",
		zap.Strings("problems", texts[:min(len(texts), maxProblems)]), zap.Int("count", len(texts)))
}
