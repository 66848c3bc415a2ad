// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/deltaring/deltaring/d2c"
)

// notices logs what stands out in batches, with a sample of whose it is: a count alone says that points are dropped, and not which
// producer is to be mended. Samples have attribute values, cut to maxText, as nothing else does that the processor logs.
type notices struct {
	logger *zap.Logger
	// streams is the number of streams, and limit max_streams.
	streams func() int
	limit   int

	mu        sync.Mutex
	outcomes  [d2c.NumOutcomes]muted
	unclear   names
	duplicate names
	fixed     uint64 // points that began where their stream did, as long as they are not told of
}

// muted is what is told of once in a while.
type muted struct {
	told   time.Time
	points uint64 // since
}

// noticeInterval is how often the points of one outcome are told of.
const noticeInterval = time.Minute

// advice says what an outcome means, and what to do.
var advice = [d2c.NumOutcomes]string{
	d2c.Covered: "points are not added: deltas that were cover their time, and nothing shows that they are the same. " +
		"Several producers share one identity: give each an attribute of its own, or set writers: many. Or retries are older than what is remembered",
	d2c.Kept: "points are held back: shared state fails, and they may have been counted before it did. " +
		"They are added when it is back, or counted in d2c_points_missed",
	d2c.DroppedOverlap: "points are dropped because of overlap: drop: they began before their stream had ended. " +
		"Several producers share one identity: give each an attribute of its own, or set writers: many",
	d2c.DroppedOlderStart: "points are dropped: they began before their stream did, and end after it. " +
		"Several producers share one identity: give each an attribute of its own, or set writers: many",
	d2c.DroppedTooLate: "points are dropped: they came too late to say whether they have been counted. " +
		"Raise late_window, or look at what holds them up on the way",
	d2c.DroppedLimit: "points of new streams are dropped: max_streams is reached. " +
		"Raise max_streams, set a shorter max_stale, or look for an attribute that has too many values",
	d2c.DroppedTime: "points are dropped: they have no time, or none that can be. " +
		"Mend the producer, or set missing_time: arrival",
	d2c.DroppedNoValue:   "points are dropped: they have no value. Mend the producer",
	d2c.DroppedNotFinite: "points are dropped: they are not a number, or infinite. Mend the producer",
	d2c.DroppedNegative: "points are dropped: they are negative, of a sum that must not fall. " +
		"Mend the producer, or have it say that the sum is not monotonic",
	d2c.DroppedBuckets: "histograms are dropped: their buckets do not fit their bounds, or are more than max_buckets. " +
		"Mend the producer, or raise max_buckets",
	d2c.DroppedWriters: "points of further writers of an aggregate are dropped: it has max_writers; raise that, or look for an attribute of the producers that changes all the time",
	d2c.DroppedScale:   "exponential histograms are dropped: scale, buckets or zero threshold are out of range. Mend the producer",
}

// hear is called by the converter.
func (n *notices) hear(notice d2c.Notice) {
	switch notice.Kind {
	case d2c.NoticeOutcome:
		n.outcome(&notice)
	case d2c.NoticeUnspecified:
		n.metric(&n.unclear, &notice, "a metric does not say whether its points are deltas, and they pass as they came. "+
			"Have the producer set its temporality")
	case d2c.NoticeDuplicate:
		n.metric(&n.duplicate, &notice, "streams differ by nothing that is a label at the backend, where their samples get mixed up: "+
			"by the type of a value, an empty one, characters that become underscores, or attributes of the resource. "+
			"Mend the producer, give each an instance (service.instance.id), or have the backend make labels of the resource and set warn_duplicates: resource")
	case d2c.NoticeFixedStart:
		n.fixedStart(&notice)
	}
}

func (n *notices) outcome(notice *d2c.Notice) {
	points, due := n.due(notice)
	if !due {
		return
	}
	fields := []zap.Field{zap.Stringer("outcome", notice.Outcome), zap.Uint64("points", points)}
	if notice.Outcome == d2c.DroppedLimit {
		fields = append(fields, zap.Int("max_streams", n.limit), zap.Int("streams", n.streams()))
	}
	n.logger.Warn(advice[notice.Outcome], append(fields, whose(notice)...)...)
}

// due returns the points of the outcome since it was told of, if it is time to tell again.
func (n *notices) due(notice *d2c.Notice) (points uint64, due bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := &n.outcomes[notice.Outcome]
	m.points += notice.Points
	if points = m.points; !m.told.IsZero() && time.Since(m.told) < noticeInterval {
		return points, false
	}
	m.told, m.points = time.Now(), 0
	return points, true
}

// metric tells of a metric once.
func (n *notices) metric(told *names, notice *d2c.Notice, message string) {
	n.mu.Lock()
	first, last := told.add(notice.Metric.Name())
	n.mu.Unlock()
	if !first {
		return
	}
	n.logger.Warn(message, append([]zap.Field{zap.Uint64("points", notice.Points)}, whose(notice)...)...)
	if last {
		n.logger.Warn("the same of further metrics is counted only", zap.Int("metrics", maxNames))
	}
}

// names are names of metrics that were told of.
type names map[string]bool

// maxNames bounds them: beyond, names are probably made up for each request.
const maxNames = 100

func (told *names) add(name string) (first, last bool) {
	name = cut(name)
	if (*told)[name] || len(*told) >= maxNames {
		return false, false
	}
	if *told == nil {
		*told = names{}
	}
	(*told)[strings.Clone(name)] = true // it may be part of a request
	return true, len(*told) == maxNames
}

// fixedFrom is how many points begin where their streams did before it is told: a few such overlaps are like others.
const fixedFrom = 10

func (n *notices) fixedStart(notice *d2c.Notice) {
	n.mu.Lock()
	before := n.fixed
	n.fixed += notice.Points
	n.mu.Unlock()
	if before < fixedFrom && before+notice.Points >= fixedFrom {
		n.logger.Warn("overlap: interpolate adds a part of deltas that begin where their streams did: the start of their producer never moves, "+
			"and most of what it counts is lost. Set overlap: add", append([]zap.Field{zap.Uint64("points", before+notice.Points)}, whose(notice)...)...)
	}
}

// The bounds of a sample in the log.
const (
	maxText       = 200
	maxAttributes = 20
)

// whose returns whose a point is, and when.
func whose(n *d2c.Notice) []zap.Field {
	fields := []zap.Field{
		zap.String("metric", cut(n.Metric.Name())),
		zap.Stringer("type", n.Metric.Type()),
		zap.Object("resource", attributesOf(n.Resource.Attributes())),
	}
	if name := n.Scope.Name(); name != "" {
		fields = append(fields, zap.String("scope", cut(name)))
	}
	if n.Kind == d2c.NoticeUnspecified {
		return fields
	}
	fields = append(fields, zap.Object("attributes", attributesOf(n.Attributes)))
	for _, t := range []struct {
		key string
		at  pcommon.Timestamp
	}{{"start", n.Start}, {"time", n.Time}, {"stream_start", n.Stream.Start}, {"stream_last", n.Stream.Last}} {
		if t.at != 0 {
			fields = append(fields, zap.Time(t.key, t.at.AsTime()))
		}
	}
	return fields
}

// attributes are logged with their types: a string has quotes, a number has not. They are a copy, because a logger may write
// them when the batch is somebody else's.
type attributes struct {
	keys   []string
	values []any
	more   int // that are left out
}

func attributesOf(m pcommon.Map) *attributes {
	a := &attributes{more: max(m.Len()-maxAttributes, 0)}
	for key, v := range m.All() {
		if len(a.keys) == maxAttributes {
			break
		}
		a.keys = append(a.keys, cut(key))
		switch v.Type() {
		case pcommon.ValueTypeInt, pcommon.ValueTypeBool, pcommon.ValueTypeDouble:
			a.values = append(a.values, v.AsRaw())
		default:
			a.values = append(a.values, cut(v.AsString()))
		}
	}
	return a
}

func (a *attributes) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for i, key := range a.keys {
		zap.Any(key, a.values[i]).AddTo(enc)
	}
	if a.more > 0 {
		enc.AddInt("...", a.more)
	}
	return nil
}

// cut returns the beginning of a text that is too long.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
