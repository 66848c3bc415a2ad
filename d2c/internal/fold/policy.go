// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import "fmt"

// GapPolicy says what happens when a delta starts after the stream's last accepted time.
type GapPolicy uint8

const (
	// GapContinue adds the delta, counts the gap and remembers it so that a late delta can fill it.
	// Right where one process sees all of a stream.
	GapContinue GapPolicy = iota
	// GapRestart begins the stream anew at the delta, the data model's strict reading.
	// Right where a stream may have been elsewhere meanwhile and no state is shared.
	GapRestart
)

// OverlapPolicy says what happens when a delta starts before the stream's last accepted time and ends after it.
type OverlapPolicy uint8

const (
	// OverlapAdd adds the delta whole.
	OverlapAdd OverlapPolicy = iota
	// OverlapDrop drops and counts it.
	OverlapDrop
	// OverlapInterpolate adds the share of a sum that lies in time not yet covered, as if the delta had grown
	// evenly over its interval. Integers round towards zero. Histograms cannot be divided and are added whole.
	OverlapInterpolate
)

var (
	gapNames     = []string{"continue", "restart"}
	overlapNames = []string{"add", "drop", "interpolate"}
)

// KnownGap reports whether p is one of the gap policies.
func KnownGap(p GapPolicy) bool { return int(p) < len(gapNames) }

// KnownOverlap reports whether p is one of the overlap policies.
func KnownOverlap(p OverlapPolicy) bool { return int(p) < len(overlapNames) }

// String returns the word a configuration file uses.
func (p GapPolicy) String() string { return policyName(gapNames, int(p)) }

// MarshalText implements encoding.TextMarshaler.
func (p GapPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (p *GapPolicy) UnmarshalText(text []byte) error {
	i, err := parsePolicy(gapNames, text)
	if err == nil {
		*p = GapPolicy(i)
	}
	return err
}

// String returns the word a configuration file uses.
func (p OverlapPolicy) String() string { return policyName(overlapNames, int(p)) }

// MarshalText implements encoding.TextMarshaler.
func (p OverlapPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (p *OverlapPolicy) UnmarshalText(text []byte) error {
	i, err := parsePolicy(overlapNames, text)
	if err == nil {
		*p = OverlapPolicy(i)
	}
	return err
}

func policyName(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("policy(%d)", i)
}

func parsePolicy(names []string, text []byte) (int, error) {
	for i, name := range names {
		if name == string(text) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("unknown policy %q, want one of %q", text, names)
}
