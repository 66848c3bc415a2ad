// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import "time"

// zeroReach is how far before the first sample a zero may be. A backend with a zero that is older than it takes samples refuses all
// that came with it; Prometheus has taken in order what is of the last hour only, and looks back five minutes.
const zeroReach = int64(5 * time.Minute)

// Zero says where the zero is with which a life began.
type Zero uint8

const (
	// NoZero is nowhere.
	NoZero Zero = iota
	// ZeroAtStart is at the life's start.
	ZeroAtStart
	// ZeroJustBefore is a step before the first sample.
	ZeroJustBefore
)

// place has the life, which begins with the sample at Emitted, begin with a zero where there is room for one: at its start
// if that is within reach, else just before the sample, though never before the start. The room is between two milliseconds, as Prometheus tells times
// apart: that of before, the latest time given out before the life, and that of the sample. A start that is unknown is put where
// the zero is, so that both are of one life.
func (t *Timeline) place(before int64, unknown bool) {
	t.Zero = NoZero
	if !t.Zeros {
		return
	}
	before = max(before, 0)
	free := func(at int64) bool { return at/lateStep > before/lateStep && at/lateStep < t.Emitted/lateStep }
	switch just := t.Emitted - lateStep; {
	case unknown && free(just):
		t.Start, t.Zero = just, ZeroAtStart
	case unknown:
	case free(t.Start) && t.Emitted-t.Start <= zeroReach:
		t.Zero = ZeroAtStart
	case just >= t.Start && free(just):
		t.Zero = ZeroJustBefore
	}
}

// ZeroTime is the time of the zero, if there is one.
func (t *Timeline) ZeroTime() int64 {
	if t.Zero == ZeroAtStart {
		return t.Start
	}
	return t.Emitted - lateStep
}

// before is the latest time at which a sample may have been given out of a stream that opens with one at a time.
func (l *Lives) before(at int64) int64 {
	if l.Began < at {
		return max(l.Began, l.Expired)
	}
	return l.Expired // a replay
}
