// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"testing"
	"time"
)

func TestDebouncer(t *testing.T) {
	ab, abc, b := members("a", "b"), members("a", "b", "c"), members("b")
	type step struct {
		at     int // seconds
		answer []Member
		act    bool
		again  int // seconds
	}
	for name, steps := range map[string][]step{
		"the first is taken at once":  {{0, ab, true, 0}},
		"a change must last":          {{0, ab, true, 0}, {1, abc, false, 5}, {4, abc, false, 2}, {6, abc, true, 0}, {7, abc, false, 0}},
		"a change taken back":         {{0, ab, true, 0}, {1, abc, false, 5}, {2, ab, false, 0}, {7, abc, false, 5}, {12, abc, true, 0}},
		"each change begins anew":     {{0, ab, true, 0}, {1, abc, false, 5}, {4, b, false, 5}, {6, b, false, 3}, {9, b, true, 0}},
		"forth and back":              {{0, ab, true, 0}, {1, abc, false, 5}, {5, b, false, 5}, {9, abc, false, 5}, {13, abc, false, 1}, {14, abc, true, 0}},
		"a late lookup is late":       {{0, ab, true, 0}, {1, abc, false, 5}, {60, abc, true, 0}},
		"endless change ends somehow": {{0, ab, true, 0}, {1, abc, false, 5}, {5, b, false, 5}, {9, abc, false, 5}, {48, b, false, 3}, {51, abc, true, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			d := debouncer{wait: 5 * time.Second}
			for _, s := range steps {
				act, again := d.offer(time.Unix(int64(s.at), 0), s.answer)
				if act != s.act || again != time.Duration(s.again)*time.Second {
					t.Errorf("at %d: act %v, again in %v; want %v, %ds", s.at, act, again, s.act, s.again)
				}
				if act {
					d.acted(s.answer)
				}
			}
		})
	}

	d := debouncer{}
	for _, answer := range [][]Member{ab, abc, b, ab} {
		if act, _ := d.offer(time.Unix(0, 0), answer); !act {
			t.Errorf("without waiting: %v is not taken at once", answer)
		}
		d.acted(answer)
	}
}
