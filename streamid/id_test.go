// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"bytes"
	"encoding"
	"encoding/gob"
	"encoding/json"
	"strings"
	"testing"

	"github.com/deltaring/deltaring/streamid"
)

var (
	_ encoding.BinaryAppender    = streamid.ID{}
	_ encoding.BinaryMarshaler   = streamid.ID{}
	_ encoding.BinaryUnmarshaler = (*streamid.ID)(nil)
	_ encoding.TextMarshaler     = streamid.ID{}
	_ encoding.TextUnmarshaler   = (*streamid.ID)(nil)
)

var forms = []struct {
	id   streamid.ID
	text string
}{
	{streamid.ID{}, "00000000000000000000000000000000"},
	{streamid.ID{Lo: 1}, "00000000000000000000000000000001"},
	{streamid.ID{Hi: 1}, "00000000000000010000000000000000"},
	{streamid.ID{Hi: 0x0123456789abcdef, Lo: 0xfedcba9876543210}, "0123456789abcdeffedcba9876543210"},
	{streamid.ID{Hi: 1<<64 - 1, Lo: 1<<64 - 1}, "ffffffffffffffffffffffffffffffff"},
}

func TestTextForm(t *testing.T) {
	for _, f := range forms {
		if got := f.id.String(); got != f.text {
			t.Errorf("String: got %s, want %s", got, f.text)
		}
		for _, s := range []string{f.text, strings.ToUpper(f.text)} {
			if got, err := streamid.Parse(s); got != f.id || err != nil {
				t.Errorf("Parse(%s): got %v, %v", s, got, err)
			}
		}
		// As a value and as a key.
		in := map[streamid.ID]streamid.ID{f.id: f.id}
		data, err := json.Marshal(in)
		if want := `{"` + f.text + `":"` + f.text + `"}`; string(data) != want || err != nil {
			t.Errorf("JSON: got %s, %v, want %s", data, err, want)
		}
		var out map[streamid.ID]streamid.ID
		if err := json.Unmarshal(data, &out); err != nil || out[f.id] != f.id || len(out) != 1 {
			t.Errorf("from JSON: got %v, %v, want %v", out, err, in)
		}
	}
}

func TestBinaryForm(t *testing.T) {
	id := streamid.ID{Hi: 0x0123456789abcdef, Lo: 0xfedcba9876543210}
	want := []byte("before\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10")
	got, err := id.AppendBinary([]byte("before"))
	if !bytes.Equal(got, want) || err != nil {
		t.Fatalf("AppendBinary: got %q, %v, want %q", got, err, want)
	}
	var back streamid.ID
	if err := back.UnmarshalBinary(want[6:]); err != nil || back != id {
		t.Errorf("UnmarshalBinary: got %v, %v, want %v", back, err, id)
	}
	var stream bytes.Buffer
	if err := gob.NewEncoder(&stream).Encode(id); err != nil {
		t.Fatal(err)
	}
	back = streamid.ID{}
	if err := gob.NewDecoder(&stream).Decode(&back); err != nil || back != id {
		t.Errorf("gob: got %v, %v, want %v", back, err, id)
	}
}

func TestMalformedFormsAreErrors(t *testing.T) {
	before := streamid.ID{Hi: 1, Lo: 2}
	for _, s := range []string{"", "0", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("0", 31) + "g",
		"-" + strings.Repeat("0", 31), " " + strings.Repeat("0", 31), strings.Repeat("é", 16), strings.Repeat("0", 1<<20)} {
		id := before
		err := id.UnmarshalText([]byte(s))
		if err == nil || id != before {
			t.Errorf("text %.40q: got %v, %v", s, id, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "streamid: id") || len(err.Error()) > 200) {
			t.Errorf("text %.40q: the error is %.300q", s, err)
		}
	}
	for _, n := range []int{0, 1, 15, 17, 32} {
		id := before
		if err := id.UnmarshalBinary(make([]byte, n)); err == nil || id != before {
			t.Errorf("%d bytes: got %v, %v", n, id, err)
		}
	}
}
