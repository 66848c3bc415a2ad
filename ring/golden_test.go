// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
)

var update = flag.Bool("update", false, "add new vectors to "+goldenFile)

const goldenFile = "testdata/v1.json"

// goldenVector is a vector: how the members are made, and hashes of what the ring makes of them.
type goldenVector struct {
	Description string  `json:"description"`
	Members     int     `json:"members"` // worker-0, worker-1, ...
	Weighted    bool    `json:"weighted"`
	Zoned       bool    `json:"zoned"`
	Slots       int     `json:"slots"`
	Balance     float64 `json:"balance"`

	Table      string `json:"table"`      // XXH3-64 of the indexes of the owners by slot, two bytes each, little-endian
	Standbys   string `json:"standbys"`   // XXH3-64 of the three Owners of key i*golden for i from 0 to 199, as above
	Epoch      string `json:"epoch"`      // of New
	Rebalanced string `json:"rebalanced"` // epoch of Rebalance after the middle member has left
}

func (g goldenVector) members() []Member {
	members := fleet("worker", g.Members)
	for i := range members {
		if g.Weighted {
			members[i].Weight = uint32(1 + i*i%17) // repeats, so some are equal
		}
		if g.Zoned {
			members[i].Zone = fmt.Sprint("zone-", i%3)
		}
	}
	return members
}

// measured returns g with the hashes as they are now.
func (g goldenVector) measured(t *testing.T) goldenVector {
	t.Helper()
	members := g.members()
	r := mustNew(t, members, WithSlots(g.Slots), WithBalance(g.Balance))
	checkForm(t, r)
	var table, standbys []byte
	for slot := range r.Slots() {
		table = binary.LittleEndian.AppendUint16(table, uint16(r.Owner(uint64(slot)<<(64-r.bits))))
	}
	var buf [3]int
	for i := range uint64(200) {
		for _, o := range r.Owners(i*golden, buf[:]) {
			standbys = binary.LittleEndian.AppendUint16(standbys, uint16(o))
		}
	}
	g.Table = fmt.Sprintf("%016x", xxh3.Hash(table))
	g.Standbys = fmt.Sprintf("%016x", xxh3.Hash(standbys))
	g.Epoch = fmt.Sprintf("%016x", r.Epoch())
	if len(members) > 1 {
		members = without(members, len(members)/2)
	}
	g.Rebalanced = fmt.Sprintf("%016x", mustRebalance(t, r, members).Epoch())

	data := marshal(t, r)
	if got := binary.LittleEndian.Uint64(data[len(data)-8:]); got != r.Epoch() || !strings.Contains(string(data), string(table)) {
		t.Error("the binary form has another epoch or table")
	}
	return g
}

// goldenInputs are the vectors without their hashes.
func goldenInputs() []goldenVector {
	var all []goldenVector
	add := func(g goldenVector) {
		g.Description = fmt.Sprintf("n=%d", g.Members)
		if g.Weighted {
			g.Description += " weighted"
		}
		if g.Zoned {
			g.Description += " zoned"
		}
		g.Description += fmt.Sprintf(" slots=%d balance=%v", g.Slots, g.Balance)
		all = append(all, g)
	}
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		for i := range 4 {
			add(goldenVector{Members: n, Weighted: i&1 != 0, Zoned: i&2 != 0, Slots: 1 << defaultBits, Balance: 0.01})
		}
	}
	for bits := 10; bits <= maxBits; bits++ {
		add(goldenVector{Members: 7 * bits, Weighted: true, Zoned: true, Slots: 1 << bits, Balance: float64(bits%4) / 100})
	}
	add(goldenVector{Members: 1024, Slots: 1024, Balance: 0})
	for bits := minBits; bits < 10; bits++ {
		for i, n := range []int{1, 3, 5, 10, 1 << bits} {
			add(goldenVector{Members: n, Weighted: i&1 != 0, Zoned: i&2 != 0, Slots: 1 << bits, Balance: 0.01})
		}
	}
	return all
}

func TestGoldenTables(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	vectors := readGolden(t)
	if len(vectors) != len(goldenInputs()) {
		t.Fatalf("%s has %d vectors, want %d: run go test -update", goldenFile, len(vectors), len(goldenInputs()))
	}
	for _, want := range vectors {
		// What takes long on an emulated machine.
		if (testing.Short() || raceEnabled) && (want.Slots > 1<<defaultBits || want.Members > 100 && want.Weighted != want.Zoned) {
			continue
		}
		t.Run(want.Description, func(t *testing.T) {
			if got := want.measured(t); got != want {
				t.Errorf("\ngot  %+v\nwant %+v", got, want)
			}
		})
	}
}

func readGolden(t *testing.T) []goldenVector {
	t.Helper()
	data, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	var vectors []goldenVector
	if err := decoder.Decode(&vectors); err != nil {
		t.Fatalf("%s: %v", goldenFile, err)
	}
	return vectors
}

// writeGolden writes one vector a line. It refuses to change one that the file has: version 1 of the table is frozen.
func writeGolden(t *testing.T) {
	t.Helper()
	old := map[string]goldenVector{}
	if _, err := os.Stat(goldenFile); err == nil {
		for _, v := range readGolden(t) {
			old[v.Description] = v
		}
	}
	var lines []string
	for _, input := range goldenInputs() {
		v := input.measured(t)
		if o, ok := old[v.Description]; ok && o != v {
			t.Fatalf("%s: would change from %+v to %+v", v.Description, o, v)
		}
		line, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	if err := os.WriteFile(goldenFile, []byte("[\n"+strings.Join(lines, ",\n")+"\n]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
