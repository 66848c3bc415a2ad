// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"fmt"
	"strings"
)

// GapPolicy says what happens when a delta starts after the stream's last accepted time.
type GapPolicy uint8

const (
	// GapContinue adds the delta, counts the gap and remembers it so that a late delta can fill it.
	// Right where one process sees all of a stream.
	GapContinue GapPolicy = iota
	// GapRestart begins the stream anew at the delta, the data model's strict reading.
	// Right where a stream may have been elsewhere meanwhile and no state is shared.
	GapRestart
	// GapRestartIfMoved begins the stream anew where it may have been elsewhere meanwhile, by the routes that gateways tell, and
	// goes on otherwise. Right behind gateways where no state is shared: a producer sends nothing for quiet intervals, so that most
	// gaps are no losses.
	GapRestartIfMoved
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

// Writers says how many producers a stream has. Its text is the word that a configuration file uses.
type Writers uint8

const (
	// WritersOne is what the data model asks for: intervals say what was counted.
	WritersOne Writers = iota
	// WritersMany have one identity: count connectors, pre-forked workers, functions, statsd. Intervals order nothing, and every
	// delta is new that is not identical to one of the late window.
	WritersMany
)

// Identical says what a delta is that is identical, by interval and contents, to one that was counted; of WritersMany only. Its
// text is the word that a configuration file uses.
type Identical uint8

const (
	// IdenticalRepeat takes it for the same delta, sent again.
	IdenticalRepeat Identical = iota
	// IdenticalAdd takes it for another. Right where producers do not retry.
	IdenticalAdd
)

// MissingTime says what becomes of points without a time. Its text is the word that a configuration file uses.
type MissingTime uint8

const (
	// MissingTimeDrop drops and counts them.
	MissingTimeDrop MissingTime = iota
	// MissingTimeArrival gives them the time of their arrival, and no start: each is added, also one that was sent again.
	MissingTimeArrival
)

// Repairs are the kinds of deltas that are malformed and yet say what they mean.
type Repairs uint8

const (
	// RepairInfiniteBound leaves out a last bound of +Inf: it says what is so without it.
	RepairInfiniteBound Repairs = 1 << iota
	// RepairOverflowBucket takes what count has more than the buckets for that of the last bucket, where that is missing.
	RepairOverflowBucket
	// RepairTrailingBuckets takes last buckets that are missing for empty, where count is that of the others.
	RepairTrailingBuckets
	// RepairMissingCount takes the sum of the buckets for a count that is not there.
	RepairMissingCount
	// RepairRoundedBounds takes bounds for those of the stream that differ by rounding: 1e-12 of their value.
	RepairRoundedBounds
	// RepairStartAfterTime takes a start after its time for unknown.
	RepairStartAfterTime

	// RepairAll is all of them.
	RepairAll = 1<<NumRepairs - 1
	// NumRepairs is their number.
	NumRepairs = 6
)

// RepairNames are the names of the kinds, fit for a metric attribute or a configuration file, by bit.
var RepairNames = [NumRepairs]string{
	"infinite_bound", "overflow_bucket", "trailing_buckets", "missing_count", "rounded_bounds", "start_after_time",
}

// String returns the names of the kinds.
func (r Repairs) String() string {
	var names []string
	for i, name := range RepairNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

var (
	gapNames         = []string{"continue", "restart", "restart_if_moved"}
	writersNames     = []string{"one", "many"}
	identicalNames   = []string{"repeat", "add"}
	missingTimeNames = []string{"drop", "arrival"}
	overlapNames     = []string{"add", "drop", "interpolate"}
)

// KnownGap reports whether p is one of the gap policies.
func KnownGap(p GapPolicy) bool { return int(p) < len(gapNames) }

// KnownWriters reports whether w is one of the kinds of writers.
func KnownWriters(w Writers) bool { return int(w) < len(writersNames) }

// KnownIdentical reports whether p is one of the policies for identical deltas.
func KnownIdentical(p Identical) bool { return int(p) < len(identicalNames) }

// KnownMissingTime reports whether p is one of the policies for points without a time.
func KnownMissingTime(p MissingTime) bool { return int(p) < len(missingTimeNames) }

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

// String returns the word a configuration file uses.
func (p Writers) String() string { return policyName(writersNames, int(p)) }

// MarshalText implements encoding.TextMarshaler.
func (p Writers) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (p *Writers) UnmarshalText(text []byte) error {
	i, err := parsePolicy(writersNames, text)
	if err == nil {
		*p = Writers(i)
	}
	return err
}

// String returns the word a configuration file uses.
func (p Identical) String() string { return policyName(identicalNames, int(p)) }

// MarshalText implements encoding.TextMarshaler.
func (p Identical) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (p *Identical) UnmarshalText(text []byte) error {
	i, err := parsePolicy(identicalNames, text)
	if err == nil {
		*p = Identical(i)
	}
	return err
}

// String returns the word a configuration file uses.
func (p MissingTime) String() string { return policyName(missingTimeNames, int(p)) }

// MarshalText implements encoding.TextMarshaler.
func (p MissingTime) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (p *MissingTime) UnmarshalText(text []byte) error {
	i, err := parsePolicy(missingTimeNames, text)
	if err == nil {
		*p = MissingTime(i)
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
