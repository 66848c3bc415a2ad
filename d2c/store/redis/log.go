// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store/log"
)

// Log is a log.Driver. It is safe for concurrent use, except that Append is for one goroutine at a time. Any number of Logs
// can share a client.
type Log struct {
	server  *server
	name    string
	prefix  string
	onRetry func(ctx context.Context, calls int)

	// Working memory of Append.
	keys  []string // by log
	blobs []blob
	done  []bool
}

var _ log.Driver = (*Log)(nil)

const (
	logVersion   = "1"
	maxLogs      = 1 << 16
	positionSize = 16
	// maxCallBytes bounds the entries of a call for several logs: a server does nothing else meanwhile. What is larger has more time.
	maxCallBytes = 1 << 20
	// A Read and a Compact with all attempts take as many timeouts.
	readTimeouts, compactTimeouts = 2, 6
)

// errGone is the error of an append that may have been done before it was sent again.
var errGone = errors.New("whether an entry was appended cannot be told any more: it was sent again, and meanwhile others have compacted the log")

// errNoLog is what is wrong with a list that is not as ours are.
var errNoLog = errors.New("no log")

// NewLog returns a Log on the servers of client: a *redis.Client, also one that uses Sentinels, or a *redis.ClusterClient.
// It does not connect to them, and the Log does not close the client. It ignores opts.TTL, because the log.Store drops
// records, and opts.Observer, because a log.Store has its own.
func NewLog(client goredis.UniversalClient, opts Options) (*Log, error) {
	switch {
	case opts.TTL != 0:
		return nil, fmt.Errorf("redis: TTL: a log does not expire; set that of the log.Store, got %v", opts.TTL)
	case opts.Observer != nil:
		return nil, errors.New("redis: observer: a log has none; set that of the log.Store")
	}
	server, err := newServer(client, &opts)
	if err != nil {
		return nil, err
	}
	return &Log{server: server, name: opts.Name, prefix: opts.Prefix, onRetry: opts.OnRetry}, nil
}

// A log is a list under one key, which is there from the first entry on:
//
//	<prefix>:{<tag of a slot group>}:_log:<name>:<version>:<number of the log>
//
// Its elements are pairs of a position, 16 bytes, and what the log has up to there: first the snapshot, which is empty and at the zero
// Position if there is none yet, then the entries. So the last element but one says where the log ends, the place of an entry follows
// from its number, and a snapshot takes the place of an entry when those before it are cut off. As all of a log is one key, the servers
// of a Cluster hand it over as a whole.
//
// Logs are divided among the hash slots such that as many as a power of two from 0 on are divided evenly.
func (l *Log) key(n int) string {
	tag := groupTag(int(bits.Reverse8(uint8(n)) >> (8 - bits.TrailingZeros(slotGroups))))
	return l.prefix + ":{" + tag + "}:_log:" + l.name + ":" + logVersion + ":" + strconv.Itoa(n)
}

func (l *Log) probeKey(group int) string {
	return fmt.Sprintf("%s:{%s}:_logprobe:%s", l.prefix, groupTag(group), logVersion)
}

func appendPosition(b []byte, p log.Position) []byte {
	b = binary.LittleEndian.AppendUint64(b, p.Number)
	return binary.LittleEndian.AppendUint64(b, p.ID)
}

func parsePosition(text string) (p log.Position, ok bool) {
	if len(text) != positionSize {
		return p, false
	}
	return log.Position{Number: binary.LittleEndian.Uint64([]byte(text)), ID: binary.LittleEndian.Uint64([]byte(text[8:]))}, true
}

// Append implements log.Driver. All appends for one server are sent together: in a Cluster one call for each log, otherwise
// one call for all. A retry recognises its own entry.
func (l *Log) Append(ctx context.Context, appends []log.Append) ([]bool, error) {
	if len(appends) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.server.timeout)
	defer cancel()
	done, err := l.append(ctx, appends)
	l.forget()
	if err != nil {
		return nil, l.server.explain("append", err)
	}
	return done, nil
}

func (l *Log) append(ctx context.Context, appends []log.Append) ([]bool, error) {
	for _, a := range appends {
		if a.Log < 0 || a.Log >= maxLogs {
			return nil, fmt.Errorf("a log has a number from 0 to %d, got %d", maxLogs-1, a.Log)
		}
		for len(l.keys) <= a.Log {
			l.keys = append(l.keys, l.key(len(l.keys)))
		}
	}
	l.blobs, l.done = grown(l.blobs, len(appends)), grown(l.done, len(appends))
	alone := l.server.groups() > 1 // each log in a call of its own: several servers
	var calls []*call
	for from := 0; from < len(appends); {
		size, to := 0, from
		for to < len(appends) && (to == from || !alone && size+len(appends[to].Entry) <= maxCallBytes) {
			size += len(appends[to].Entry)
			to++
		}
		calls = append(calls, l.call(appends, from, to, size))
		from = to
	}
	done, retries, err := l.server.run(ctx, calls)
	l.retried(ctx, retries)
	if err != nil {
		return nil, err
	}
	for _, c := range done {
		marks, ok := c.answer.(string)
		if !ok || len(marks) != c.count {
			return nil, errAnswer
		}
		for i, mark := range []byte(marks) {
			switch {
			case mark == appendGone && c.again:
				return nil, errGone
			case mark == appendDone || mark == appendRefused || mark == appendGone:
				l.done[c.first+i] = mark == appendDone
			default:
				return nil, errAnswer
			}
		}
	}
	return l.done, nil
}

// call makes one call for the appends in a range.
func (l *Log) call(appends []log.Append, from, to, size int) *call {
	n := to - from
	c := &call{script: appendScript, key: l.keys[appends[from].Log], first: from, count: n, light: true, large: size > maxCallBytes}
	c.args = append(make([]any, 0, 4+2*n), nil, nil, n)
	positions := make(blob, 0, 2*positionSize*n)
	for i := from; i < to; i++ {
		a := &appends[i]
		c.args = append(c.args, &l.keys[a.Log]) // a pointer, because a string in an interface is an allocation
		positions = appendPosition(positions, a.After)
		positions = appendPosition(positions, log.Position{Number: a.After.Number + 1, ID: a.ID})
		l.blobs[i] = a.Entry
	}
	c.args = append(c.args, &positions)
	for i := from; i < to; i++ {
		c.args = append(c.args, &l.blobs[i])
	}
	c.args[3] = c.key // where the client looks for the slot
	return c
}

// Read implements log.Driver. A server that has become a replica refuses it, because its data may be out of date.
func (l *Log) Read(ctx context.Context, n int, after log.Position) (log.Tail, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeouts*l.server.timeout)
	defer cancel()
	key := l.key(n)
	answer, err := l.one(ctx, &call{script: readScript, key: key, args: []any{nil, nil, 1, key, appendPosition(nil, after)}})
	var tail log.Tail
	if err == nil {
		if tail, err = parseTail(answer, after); errors.Is(err, errNoLog) {
			err = fmt.Errorf("what is under %q is %w: delete it", key, err)
		}
	}
	if err != nil {
		return log.Tail{}, l.server.explain("read", err)
	}
	return tail, nil
}

// parseTail makes a Tail of the elements of a list, of which the first is there only if it is the begin.
func parseTail(answer any, after log.Position) (t log.Tail, err error) {
	reply, ok := answer.([]any)
	if !ok || len(reply) != 2 {
		return t, errAnswer
	}
	begin, ok := reply[0].(int64)
	elements, list := reply[1].([]any)
	if !ok || !list {
		return t, errAnswer
	}
	if len(elements)%2 != 0 {
		return t, errNoLog
	}
	t.From = after
	if begin != 0 {
		t.From = log.Position{}
		if len(elements) > 0 {
			at, snapshot, err := parsePair(elements)
			if err != nil {
				return t, err
			}
			if t.From = at; at.Number > 0 {
				t.Snapshot = []byte(snapshot)
			}
			elements = elements[2:]
		}
	}
	number := t.From.Number
	for ; len(elements) > 0; elements = elements[2:] {
		at, data, err := parsePair(elements)
		if number++; err == nil && at.Number != number {
			err = errNoLog
		}
		if err != nil {
			return t, err
		}
		t.Entries = append(t.Entries, log.Entry{ID: at.ID, Data: []byte(data)})
	}
	return t, nil
}

func parsePair(elements []any) (log.Position, string, error) {
	text, ok1 := elements[0].(string)
	data, ok2 := elements[1].(string)
	if !ok1 || !ok2 {
		return log.Position{}, "", errAnswer
	}
	at, ok := parsePosition(text)
	if !ok {
		return at, "", errNoLog
	}
	return at, data, nil
}

// Compact implements log.Driver. It is atomic, and may be sent twice. A server at its maxmemory still performs it, because
// it frees memory.
func (l *Log) Compact(ctx context.Context, n int, at log.Position, snapshot []byte) error {
	ctx, cancel := context.WithTimeout(ctx, compactTimeouts*l.server.timeout)
	defer cancel()
	key := l.key(n)
	answer, err := l.one(ctx, &call{script: compactScript, key: key, args: []any{nil, nil, 1, key, appendPosition(nil, at), snapshot}})
	if did, ok := answer.(int64); err == nil && (!ok || did != 0 && did != 1) {
		err = errAnswer
	}
	if err != nil {
		return l.server.explain("compact", err)
	}
	return nil
}

// one runs one call that may have much to say.
func (l *Log) one(ctx context.Context, c *call) (any, error) {
	c.large = true
	done, retries, err := l.server.run(ctx, []*call{c})
	l.retried(ctx, retries)
	if err != nil {
		return nil, err
	}
	return done[0].answer, nil
}

func (l *Log) retried(ctx context.Context, calls int) {
	if calls > 0 && l.onRetry != nil {
		l.onRetry(ctx, calls)
	}
}

// Probe does what Append, Read and Compact do, with a key of its own in each place where logs are kept, so it fails where
// they would fail. It leaves logs alone, and may run while other goroutines use the Log.
func (l *Log) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.server.timeout)
	defer cancel()
	calls := make([]*call, max(l.server.groups(), 2)) // a node of a Cluster that is taken for one server has not all
	for i := range calls {
		key := l.probeKey(i * slotGroups / len(calls))
		calls[i] = &call{script: logProbeScript, key: key, args: []any{nil, nil, 1, key, probeTTL.Milliseconds()}}
	}
	done, _, err := l.server.run(ctx, calls)
	for _, c := range done {
		if n, ok := c.answer.(int64); err == nil && (!ok || n != 1) {
			err = errAnswer
		}
	}
	if err != nil {
		return l.server.explain("probe", err)
	}
	return nil
}

// forget keeps no entry alive.
func (l *Log) forget() { clear(l.blobs) }
