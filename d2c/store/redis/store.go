// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// Options say where records are kept and for how long. The zero value of each field selects its default, except for Name,
// which is required.
type Options struct {
	// Name identifies the owner of the records. Stores with the same Prefix and Name on the same servers share them. It must
	// not begin with an underscore.
	Name string
	// Prefix begins all keys. Printable ASCII without spaces and braces, at most 64 bytes; every stream stores it, so keep
	// it short. Default d2c.
	Prefix string
	// TTL is the minimum time that a record is kept after it was last written; it may be up to twice that. All who share records
	// must use the same value. Zero keeps them for ever.
	TTL time.Duration
	// Timeout bounds a method call with all its attempts. Default 5s. For a Log, Read has twice and Compact six times that
	// in total, and large transfers have a Timeout for each attempt, whatever the client's.
	Timeout time.Duration
	// MaxRetries bounds how often a call is sent again that a server does not answer or cannot serve yet: after 50 ms, 100
	// ms, and so on. Zero disables retries.
	MaxRetries int
	// WaitReplicas is the number of replicas that must have received a write before Swap returns. Default 0.
	WaitReplicas int
	// WaitTimeout is how long the replicas may take. The client's ReadTimeout must be longer. Default 500ms.
	WaitTimeout time.Duration
	// Server is the name of the servers in errors. Default: their addresses.
	Server string
	// Observer, if not nil, is informed of each call of a Store.
	Observer Observer
	// OnRetry, if not nil, is called by a Log with the number of calls to servers that were sent again. It may be called
	// concurrently.
	OnRetry func(ctx context.Context, calls int)

	// prevent unkeyed literal initialization
	_ struct{}
}

// Observer receives what a Store does, in the goroutine that uses the Store. It must not keep its arguments.
type Observer interface {
	// Swapped is called after each Swap with the time it took, the number of calls to servers that were sent again, and the
	// error. If there is an error, there are no results.
	Swapped(ctx context.Context, swaps []store.Swap, results []store.Result, took time.Duration, retries int, err error)
	// Read is called after each Read with the number of records asked for, of calls to servers that were sent again, and the error.
	Read(ctx context.Context, records, retries int, err error)
	// SetAside is called after each SetAside; moved reports whether there was such a record.
	SetAside(ctx context.Context, moved bool, err error)
}

// Store is a store.Shared for one goroutine at a time. Any number of them can share a client.
type Store struct {
	server   *server
	name     string
	prefix   string
	ttl      int64 // in milliseconds; zero is for ever
	observer Observer

	keys [slotGroups]groupKeys

	// Working memory of Swap and Read.
	text    []byte
	values  []byte
	fields  []string
	blobs   []blob
	args    []any
	groups  []uint8
	order   []int32
	results []store.Result

	// What the last Read has found in newer hashes, until a Swap uses it: the tags in order, and the version of each group, empty if it
	// is not known.
	told     []told
	versions [slotGroups]string
	sure     []bool // what is based on that
}

// told is a record that was read.
type told struct {
	id  streamid.ID
	tag uint64
}

// groupKeys are the keys of a group.
type groupKeys struct{ records, older, life string }

var _ store.Reader = (*Store)(nil)

// blob is bytes as an argument, without the allocation that bytes in an interface cost.
type blob []byte

// MarshalBinary implements encoding.BinaryMarshaler.
func (b *blob) MarshalBinary() ([]byte, error) { return *b, nil }

const (
	defaultPrefix      = "d2c"
	defaultTimeout     = 5 * time.Second
	defaultWaitTimeout = 500 * time.Millisecond

	maxPrefix = 64
	maxName   = 1024

	// maxSwaps bounds the swaps of a call, unless they are one unit. Meanwhile the server does nothing else: a millisecond at
	// most. It also begins with the first call of a batch while the others are on their way.
	maxSwaps = 500
	// maxGets bounds the records that are read in a call; each costs less than a swap, see BenchmarkRead.
	maxGets = 1000
	// asideTTL is how long a value that was set aside is kept.
	asideTTL = 30 * 24 * time.Hour
	probeTTL = time.Minute

	tagSize  = 8
	lifeSize = 24

	// keptSwaps and keptBytes bound the working memory that is kept for the next call.
	keptSwaps = 1 << 14
	keptBytes = 4 << 20
)

// New returns a Store on the servers of client: a *redis.Client, also one that uses Sentinels, or a *redis.ClusterClient. It
// does not connect to them, and the Store does not close the client.
func New(client goredis.UniversalClient, opts Options) (*Store, error) {
	server, err := newServer(client, &opts)
	if err != nil {
		return nil, err
	}
	st := &Store{
		server: server,
		name:   opts.Name, prefix: opts.Prefix, ttl: opts.TTL.Milliseconds(), observer: opts.Observer,
	}
	for g := range server.groups() {
		st.keys[g] = groupKeys{st.recordsKey(g, newerRecords), st.recordsKey(g, olderRecords), st.lifeKey(g)}
	}
	return st, nil
}

// newServer returns the servers of a client, and sets what opts leaves out.
func newServer(client goredis.UniversalClient, opts *Options) (*server, error) {
	servers, err := topologyOf(client)
	if err != nil {
		return nil, err
	}
	if opts.Prefix == "" {
		opts.Prefix = defaultPrefix
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.WaitTimeout == 0 {
		opts.WaitTimeout = defaultWaitTimeout
	}
	switch read := servers.readTimeout(); {
	case opts.Name == "" || opts.Name[0] == '_' || len(opts.Name) > maxName:
		return nil, fmt.Errorf("redis: name: must have 1 to %d bytes and not begin with an underscore, got %q", maxName, opts.Name)
	case opts.TTL < 0 || opts.TTL > 0 && opts.TTL < time.Millisecond:
		return nil, fmt.Errorf("redis: TTL: must be a millisecond at least, got %v", opts.TTL)
	case opts.Timeout < 0:
		return nil, fmt.Errorf("redis: timeout: must be positive, got %v", opts.Timeout)
	case opts.MaxRetries < 0:
		return nil, fmt.Errorf("redis: max retries: must not be negative, got %d", opts.MaxRetries)
	case opts.WaitReplicas < 0:
		return nil, fmt.Errorf("redis: wait replicas: must not be negative, got %d", opts.WaitReplicas)
	case opts.WaitTimeout < time.Millisecond: // WAIT takes zero for ever
		return nil, fmt.Errorf("redis: wait timeout: must be a millisecond at least, got %v", opts.WaitTimeout)
	case opts.WaitReplicas > 0 && read > 0 && read <= opts.WaitTimeout:
		return nil, fmt.Errorf("redis: wait timeout: must be shorter than the client's read timeout, %v, got %v", read, opts.WaitTimeout)
	}
	if opts.Server == "" {
		opts.Server = servers.address()
	}
	if err := ValidatePrefix(opts.Prefix); err != nil {
		return nil, fmt.Errorf("redis: prefix: %w", err)
	}
	return &server{
		topology:     servers,
		name:         opts.Server,
		timeout:      opts.Timeout,
		maxRetries:   opts.MaxRetries,
		waitReplicas: opts.WaitReplicas,
		waitTimeout:  opts.WaitTimeout,
	}, nil
}

// ValidatePrefix reports what is wrong with a prefix.
func ValidatePrefix(prefix string) error {
	switch {
	case prefix == "":
		return errors.New("must not be empty")
	case len(prefix) > maxPrefix:
		return fmt.Errorf("must have at most %d bytes, got %d", maxPrefix, len(prefix))
	}
	for _, r := range prefix {
		if r <= ' ' || r > '~' || strings.ContainsRune("{}", r) {
			return fmt.Errorf("must not contain %q", r)
		}
	}
	return nil
}

// Lives implements store.Shared.
func (st *Store) Lives(ctx context.Context, proposed store.Life) ([]store.Life, error) {
	if proposed.ID == 0 {
		return nil, errors.New("redis: the life proposed has no ID")
	}
	ctx, cancel := context.WithTimeout(ctx, st.server.timeout)
	defer cancel()
	value := binary.LittleEndian.AppendUint64(make([]byte, 0, lifeSize), proposed.ID)
	value = binary.LittleEndian.AppendUint64(value, uint64(proposed.From))
	value = binary.LittleEndian.AppendUint64(value, uint64(proposed.Floor))
	groups := st.server.groups()
	calls, byKey := make([]*call, groups), make(map[string]int, groups)
	for g := range calls {
		key := st.lifeKey(g)
		byKey[key] = g
		calls[g] = &call{script: livesScript, key: key, args: []any{nil, nil, 1, key, value}}
	}
	done, _, err := st.server.run(ctx, calls)
	if err != nil {
		return nil, st.server.explain("lives", err)
	}
	lives := make([]store.Life, groups)
	for _, c := range done {
		life, ok := parseLife(c.answer)
		if _, text := c.answer.(string); !text {
			return nil, st.server.explain("lives", errAnswer)
		}
		if !ok {
			return nil, st.server.explain("lives", fmt.Errorf("what is under %q is no life: delete it", c.key))
		}
		lives[byKey[c.key]] = life
	}
	return lives, nil
}

func parseLife(answer any) (store.Life, bool) {
	text, ok := answer.(string)
	if !ok || len(text) != lifeSize {
		return store.Life{}, false
	}
	life := store.Life{
		ID:    binary.LittleEndian.Uint64([]byte(text[:8])),
		From:  int64(binary.LittleEndian.Uint64([]byte(text[8:]))),
		Floor: int64(binary.LittleEndian.Uint64([]byte(text[16:]))),
	}
	return life, life.ID != 0
}

// Swap implements store.Shared. A call may reach the server twice. The second one then finds its own record and answers
// Changed with it; the caller knows by the tag that the swap was performed.
func (st *Store) Swap(ctx context.Context, swaps []store.Swap) ([]store.Result, error) {
	if len(swaps) == 0 {
		return nil, nil
	}
	started := time.Now()
	retries, err := st.swap(ctx, swaps)
	if err != nil {
		err = st.server.explain("swap", err)
	}
	results := st.results
	st.forget()
	if err != nil {
		results = nil
	}
	if st.observer != nil {
		st.observer.Swapped(ctx, swaps, results, time.Since(started), retries, err)
	}
	return results, err
}

func (st *Store) swap(ctx context.Context, swaps []store.Swap) (retries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, st.server.timeout)
	defer cancel()
	clear(st.results)
	st.results = grown(st.results, len(swaps))
	calls, err := st.divide(swaps)
	for err == nil && len(calls) > 0 {
		var done []*call
		var again int
		done, again, err = st.server.run(ctx, calls)
		retries += again
		calls = calls[:0]
		for _, c := range done {
			switch n, ok := c.answer.(int64); {
			case err != nil:
			case ok && n == 1 && !c.behind:
				st.lookBehind(c)
				calls = append(calls, c)
			default:
				err = st.swapped(c)
			}
		}
	}
	if err != nil {
		return retries, err
	}
	withhold(swaps, st.results)
	return retries, nil
}

// withhold says of units that were not done that none of them was.
func withhold(swaps []store.Swap, results []store.Result) {
	for from := 0; from < len(swaps); {
		to := unitEnd(swaps, from)
		all := true
		for i := from; i < to; i++ {
			all = all && results[i].Status == store.Swapped
		}
		for i := from; i < to && !all; i++ {
			if results[i].Status == store.Swapped {
				results[i].Status = store.Withheld
			}
		}
		from = to
	}
}

// unitEnd returns where the unit that begins at from ends.
func unitEnd(swaps []store.Swap, from int) int {
	to := from + 1
	for unit := swaps[from].Unit; unit != 0 && to < len(swaps) && swaps[to].Unit == unit; {
		to++
	}
	return to
}

// swapped makes of the answer what it means for the swaps.
func (st *Store) swapped(c *call) error {
	if n, ok := c.answer.(int64); ok && n == 0 {
		for _, i := range c.swaps {
			st.results[i] = store.Result{Status: store.OtherLife}
		}
		return nil
	}
	pairs, ok := c.answer.([]any)
	if !ok || len(pairs)%2 != 0 {
		return errAnswer
	}
	room := roomFor(pairs)
	for ; len(pairs) > 0; pairs = pairs[2:] {
		n, ok := pairs[0].(int64)
		if !ok || n < 1 || n > int64(len(c.swaps)) {
			return errAnswer
		}
		if st.results[c.swaps[n-1]], ok = changedTo(pairs[1], &room); !ok {
			return errAnswer
		}
	}
	return nil
}

// roomFor returns room for what is in an answer: one allocation for all.
func roomFor(values []any) []byte {
	n := 0
	for _, v := range values {
		text, _ := v.(string)
		n += len(text)
	}
	return make([]byte, 0, n)
}

// changedTo returns the result that tells what is there, and whether a server can say that. The record is in room.
func changedTo(there any, room *[]byte) (r store.Result, ok bool) {
	r.Status = store.Changed
	switch there := there.(type) {
	case nil:
		return r, true
	case string:
		if len(there) > tagSize {
			r.Tag = binary.LittleEndian.Uint64([]byte(there[:tagSize]))
			there = there[tagSize:]
		}
		from := len(*room)
		*room = append(*room, there...)
		r.Record = (*room)[from:len(*room):len(*room)] // not nil: there is something, whatever it is
		return r, true
	}
	return r, false
}

// Read implements store.Reader, without a script. A key that holds no string reads as no record. A server that has become a
// replica may answer with old records; it refuses the swap that follows.
func (st *Store) Read(ctx context.Context, ids []streamid.ID) ([]store.Result, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	retries, err := st.read(ctx, ids)
	if err != nil {
		err = st.server.explain("read", err)
	}
	results := st.results
	st.forget()
	if err != nil {
		results = nil
	}
	if st.observer != nil {
		st.observer.Read(ctx, len(ids), retries, err)
	}
	return results, err
}

func (st *Store) read(ctx context.Context, ids []streamid.ID) (retries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, st.server.timeout)
	defer cancel()
	clear(st.results)
	st.results = grown(st.results, len(ids))
	st.arrange(len(ids), func(i int) streamid.ID { return ids[i] })
	st.told = st.told[:0]
	var seen [slotGroups]bool
	order := st.order
	for _, older := range []bool{false, true} {
		done, again, err := st.server.run(ctx, st.gets(order, older))
		retries += again
		if err != nil {
			return retries, err
		}
		for _, c := range done {
			values, ok := c.answer.([]any)
			if !ok || len(values) != len(c.swaps)+1 {
				return retries, errAnswer
			}
			if version, _ := values[len(c.swaps)].(string); !older {
				if seen[c.group] && st.versions[c.group] != version {
					version = "" // somebody came between two calls
				}
				st.versions[c.group], seen[c.group] = version, true
			}
			room := roomFor(values)
			for at, i := range c.swaps {
				if st.results[i], ok = changedTo(values[at], &room); !ok {
					return retries, errAnswer
				}
			}
		}
		if !older {
			for i, id := range ids {
				if st.results[i].Record != nil {
					st.told = append(st.told, told{id, st.results[i].Tag})
				}
			}
		}
		order = slices.DeleteFunc(order, func(i int32) bool { return st.results[i].Record != nil })
	}
	return retries, nil
}

// SetAside implements store.Shared: the value is kept under another key for 30 days.
func (st *Store) SetAside(ctx context.Context, id streamid.ID, record []byte) error {
	moved, err := st.setAside(ctx, id, record)
	if err != nil {
		err = st.server.explain("set aside", err)
	}
	if st.observer != nil {
		st.observer.SetAside(ctx, moved, err)
	}
	return err
}

func (st *Store) setAside(ctx context.Context, id streamid.ID, record []byte) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, st.server.timeout)
	defer cancel()
	if record == nil {
		record = []byte{}
	}
	keys := st.keys[store.Group(id, st.server.groups())]
	field, _ := id.AppendBinary(nil)
	// The other key is random. That there is one already is a chance in 2^64, unless the server is none.
	for range 3 {
		c := &call{script: asideScript, key: keys.records, args: []any{
			nil, nil, 3, keys.records, keys.older, st.asideKey(id), field, record, asideTTL.Milliseconds(),
		}}
		if _, _, err := st.server.run(ctx, []*call{c}); err != nil {
			return false, err
		}
		switch c.answer {
		case int64(1):
			return true, nil
		case int64(0):
			return false, nil
		case int64(-1):
		default:
			return false, errAnswer
		}
	}
	return false, errAnswer
}

// Probe does what Swap does, with a key of its own in each group, so it fails where Swap would fail. It leaves records
// alone, and may run while other goroutines use the Store.
func (st *Store) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, st.server.timeout)
	defer cancel()
	calls := make([]*call, st.server.groups())
	for g := range calls {
		key := st.probeKey(g)
		calls[g] = &call{script: probeScript, key: key, args: []any{nil, nil, 1, key, probeTTL.Milliseconds()}}
	}
	done, _, err := st.server.run(ctx, calls)
	for _, c := range done {
		if n, ok := c.answer.(int64); err == nil && (!ok || n != 1) {
			err = errAnswer
		}
	}
	if err != nil {
		return st.server.explain("probe", err)
	}
	return nil
}

// forget gives back the working memory of a giant batch, and does not keep its records alive.
func (st *Store) forget() {
	clear(st.blobs)
	clear(st.fields)
	if cap(st.values) > keptBytes {
		st.values = nil
	}
	if cap(st.text) > keptBytes {
		st.text = nil
	}
	if max(cap(st.fields), cap(st.order)) > keptSwaps {
		st.fields, st.blobs, st.args, st.groups, st.order, st.told, st.sure = nil, nil, nil, nil, nil, nil, nil
	}
	if cap(st.results) > keptSwaps {
		st.results = nil // they are the caller's until the next call
	}
}

// grown returns s with length n. What is in there is not to be relied on, beyond what was cleared.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// The records of a group are fields of a hash. The field is the identity of the stream, 16 bytes, and the value the tag in eight bytes
// and then the record itself. Its key is
//
//	<prefix>:{<tag>}:<name>:<version><n or o>
//
// n has the newer records, and o older ones: see swapScript. A prefix has no brace, and what follows the name has a fixed length, so
// no two prefixes and no two names have a key in common. The version is that of this layout and of the encoding of identities, not
// that of records: workers of two releases must see each other's.
//
// All other keys have an underscore where a name has none:
//
//	<prefix>:{<tag>}:_life:<name>:<version>
//	<prefix>:{<tag>}:_damaged:<name>:<version>:<identity in hexadecimal>:<random>
//	<prefix>:{<tag>}:_probe:<version>
//
// The one group of a single server has a tag of its own, so that it is not taken for one of the groups of a Cluster.
const (
	layoutVersion = "3"
	newerRecords  = 'n'
	olderRecords  = 'o'
	oneTag        = "1"
)

// The slot groups. Streams are divided by their first bits among as many hash slots as this, and what goes to one slot goes in
// one call: more would make more and smaller calls of a batch, fewer would divide badly among the nodes of a Cluster. Group
// i lies within 20 of the middle of the i-th part of all slots, so that nodes with as many slots have as many streams.
const (
	slotGroups = 64
	groupTags  = "mm6q9ie82921apax0jkvdndf3go6gcxw8gd6lc02g34con4r99911dm5fmyy2iiu" +
		"7ak0ce8y4lopx9x1jf1zzjb3ik2wygfsbk9w6omsafan5bi3c5dpkh0txixahe44"
)

func groupTag(group int) string { return groupTags[2*group : 2*group+2] }

func (st *Store) recordsKey(group int, which rune) string {
	return fmt.Sprintf("%s:{%s}:%s:%s%c", st.prefix, st.tag(group), st.name, layoutVersion, which)
}

// tag is what decides in which slot a group is.
func (st *Store) tag(group int) string {
	if st.server.groups() == 1 {
		return oneTag
	}
	return groupTag(group)
}

func (st *Store) lifeKey(group int) string {
	return fmt.Sprintf("%s:{%s}:_life:%s:%s", st.prefix, st.tag(group), st.name, layoutVersion)
}

func (st *Store) probeKey(group int) string {
	return fmt.Sprintf("%s:{%s}:_probe:%s", st.prefix, st.tag(group), layoutVersion)
}

func (st *Store) asideKey(id streamid.ID) string {
	return fmt.Sprintf("%s:{%s}:_damaged:%s:%s:%v:%016x",
		st.prefix, st.tag(store.Group(id, st.server.groups())), st.name, layoutVersion, id, rand.Uint64())
}
