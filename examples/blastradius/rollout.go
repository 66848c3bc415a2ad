// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// rollout is the bounds of a rolling update: how many members may run.
type rollout struct {
	Desired int // before and after
	Floor   int // at least so many, all of them ready
	Ceiling int // at most so many
}

// phase is a moment of a rolling update at which the fleet changes.
type phase struct {
	Stopped  int // old members stopped now
	Started  int // new members that became ready now
	Old, New int // how many run then
}

// parseRoll reads -roll: so many are stopped, and then as many are started.
func parseRoll(desired, atOnce int) (rollout, error) {
	if atOnce < 1 || atOnce > desired {
		return rollout{}, fmt.Errorf("%d at a time of %d members: want 1 to %d", atOnce, desired, desired)
	}
	return rollout{desired, desired - atOnce, desired}, nil
}

// parseECS reads the minimum healthy percent and the maximum percent of an ECS service, as in "100/200". Of the desired
// count, ECS rounds the minimum up and the maximum down.
func parseECS(desired int, setting string) (rollout, error) {
	low, high, err := splitPair(setting)
	if err != nil {
		return rollout{}, err
	}
	minimum, err := parsePercent(low)
	if err != nil || minimum > 100 {
		return rollout{}, fmt.Errorf("minimum healthy percent %q: want 0 to 100", low)
	}
	maximum, err := parsePercent(high)
	if err != nil || maximum < 100 {
		return rollout{}, fmt.Errorf("maximum percent %q: want 100 to %d", high, maxPercent)
	}
	r := rollout{desired, ceilPercent(desired, minimum), desired * maximum / 100}
	if r.Floor == desired && r.Ceiling == desired {
		return rollout{}, fmt.Errorf("minimum healthy percent %d and maximum percent %d of %d members are both %d: "+
			"ECS could neither stop nor start one", minimum, maximum, desired, desired)
	}
	return r, nil
}

// parseK8s reads maxSurge and maxUnavailable of a Kubernetes Deployment, as in "25%/25%" or "1/0": each a number of pods
// or a percentage of the desired ones. Kubernetes rounds the surge up and the unavailable down, and should both come out
// as 0, takes 1 for unavailable.
func parseK8s(desired int, setting string) (rollout, error) {
	high, low, err := splitPair(setting)
	if err != nil {
		return rollout{}, err
	}
	surge, err := parsePods(high, desired, ceilPercent)
	if err != nil {
		return rollout{}, fmt.Errorf("maxSurge %q: %w", high, err)
	}
	unavailable, err := parsePods(low, desired, func(n, percent int) int { return n * percent / 100 })
	if err != nil {
		return rollout{}, fmt.Errorf("maxUnavailable %q: %w", low, err)
	}
	if percent, found := strings.CutSuffix(low, "%"); found {
		if n, _ := strconv.Atoi(percent); n > 100 {
			return rollout{}, fmt.Errorf("maxUnavailable %q: want at most 100%%", low)
		}
	}
	if surge == 0 && unavailable == 0 {
		if strings.TrimSuffix(low, "%") == "0" {
			return rollout{}, errors.New("maxSurge 0 and maxUnavailable 0: Kubernetes could neither stop nor start a pod")
		}
		unavailable = 1
	}
	return rollout{desired, desired - min(unavailable, desired), desired + surge}, nil
}

// maxPercent keeps products with the number of members far from overflow.
const maxPercent = 10_000

func splitPair(setting string) (first, second string, err error) {
	first, second, found := strings.Cut(setting, "/")
	if !found {
		return "", "", fmt.Errorf("%q: want two numbers with a slash between", setting)
	}
	return first, second, nil
}

func parsePercent(word string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(word, "%"))
	if err != nil || n < 0 || n > maxPercent {
		return 0, fmt.Errorf("want 0%% to %d%%", maxPercent)
	}
	return n, nil
}

func parsePods(word string, desired int, of func(desired, percent int) int) (int, error) {
	if strings.HasSuffix(word, "%") {
		percent, err := parsePercent(word)
		return of(desired, percent), err
	}
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 || n > maxMembers {
		return 0, fmt.Errorf("want a number from 0 to %d, or a percentage", maxMembers)
	}
	return n, nil
}

func ceilPercent(n, percent int) int { return (n*percent + 99) / 100 }

// phases returns the course of a rolling update that uses its bounds to the full: as many old members are stopped as the
// floor allows, and as many new ones are started as the ceiling allows; the latter become ready all together, and so on.
// Stopping comes first because it takes effect at once, while what was started at the same time is not ready yet.
func (r rollout) phases() []phase {
	var course []phase
	before, now := r.Desired, 0
	for before > 0 || now < r.Desired {
		stop := min(before, before+now-r.Floor)
		if stop > 0 {
			before -= stop
			course = append(course, phase{Stopped: stop, Old: before, New: now})
		}
		start := min(r.Ceiling-before-now, r.Desired-now)
		if start > 0 {
			now += start
			course = append(course, phase{Started: start, Old: before, New: now})
		}
		if stop <= 0 && start <= 0 {
			panic(fmt.Sprintf("rollout %+v is stuck", r)) // the parsers return no such bounds
		}
	}
	return course
}
