// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deltaring/deltaring/ring"
)

// course writes phases as "-2 +5 -3".
func course(phases []phase) string {
	var words []string
	for _, p := range phases {
		if p.Stopped > 0 {
			words = append(words, fmt.Sprintf("-%d", p.Stopped))
		}
		if p.Started > 0 {
			words = append(words, fmt.Sprintf("+%d", p.Started))
		}
	}
	return strings.Join(words, " ")
}

func TestRollouts(t *testing.T) {
	for _, tc := range []struct {
		mode           string
		desired        int
		setting        string
		floor, ceiling int
		course         string
	}{
		{"roll", 4, "1", 3, 4, "-1 +1 -1 +1 -1 +1 -1 +1"},
		{"roll", 5, "2", 3, 5, "-2 +2 -2 +2 -1 +1"},
		{"roll", 3, "3", 0, 3, "-3 +3"},

		{"ecs", 4, "100/200", 4, 8, "+4 -4"},
		{"ecs", 4, "50/100", 2, 4, "-2 +2 -2 +2"},
		{"ecs", 4, "50/200", 2, 8, "-2 +4 -2"}, // of 6 that may start, 4 are wanted
		{"ecs", 3, "50/100", 2, 3, "-1 +1 -1 +1 -1 +1"},
		{"ecs", 3, "100/150", 3, 4, "+1 -1 +1 -1 +1 -1"}, // 4.5 is 4
		{"ecs", 10, "75%/125%", 8, 12, "-2 +4 -4 +4 -4 +2"},
		{"ecs", 1, "100/200", 1, 2, "+1 -1"},
		{"ecs", 1, "0/100", 0, 1, "-1 +1"},
		{"ecs", 7, "1/100", 1, 7, "-6 +6 -1 +1"}, // 0.07 is 1

		{"k8s", 4, "25%/25%", 3, 5, "-1 +2 -2 +2 -1"},
		{"k8s", 10, "25%/25%", 8, 13, "-2 +5 -5 +5 -3"}, // 2.5 more is 3, 2.5 fewer is 2
		{"k8s", 3, "1/0", 3, 4, "+1 -1 +1 -1 +1 -1"},
		{"k8s", 3, "0/1", 2, 3, "-1 +1 -1 +1 -1 +1"},
		{"k8s", 3, "0/10%", 2, 3, "-1 +1 -1 +1 -1 +1"}, // both 0 after rounding: 1 unavailable
		{"k8s", 3, "100%/0%", 3, 6, "+3 -3"},
		{"k8s", 3, "0%/100%", 0, 3, "-3 +3"},
		{"k8s", 3, "0/9", 0, 3, "-3 +3"},
		{"k8s", 2, "9/0", 2, 11, "+2 -2"},
	} {
		got, err := parseRollout(tc.mode, tc.desired, tc.setting)
		if want := (rollout{tc.desired, tc.floor, tc.ceiling}); err != nil || got != want {
			t.Errorf("%s %s of %d: got %+v, %v; want %+v", tc.mode, tc.setting, tc.desired, got, err, want)
			continue
		}
		if got := course(got.phases()); got != tc.course {
			t.Errorf("%s %s of %d: got %s, want %s", tc.mode, tc.setting, tc.desired, got, tc.course)
		}
	}
}

func parseRollout(mode string, desired int, setting string) (rollout, error) {
	switch mode {
	case "ecs":
		return parseECS(desired, setting)
	case "k8s":
		return parseK8s(desired, setting)
	}
	var atOnce int
	if _, err := fmt.Sscan(setting, &atOnce); err != nil {
		return rollout{}, err
	}
	return parseRoll(desired, atOnce)
}

// All settings up to 13 members: bounds are kept, the update comes to its end, and settings are refused only if they
// leave no room.
func TestRolloutsKeepTheirBounds(t *testing.T) {
	percents := []int{0, 1, 10, 25, 33, 50, 66, 75, 99, 100, 101, 110, 125, 150, 200, 300}
	for desired := 1; desired <= 13; desired++ {
		var bounds []rollout
		for k := 1; k <= desired; k++ {
			r, err := parseRoll(desired, k)
			if err != nil {
				t.Fatal(err)
			}
			bounds = append(bounds, r)
		}
		for _, low := range percents {
			for _, high := range percents {
				r, err := parseECS(desired, fmt.Sprintf("%d/%d", low, high))
				// The bounds in real numbers: 100 * floor >= low * desired, 100 * ceiling <= high * desired.
				stuck := low > 100 || high < 100 || (100*(desired-1) < low*desired && 100*(desired+1) > high*desired)
				if (err != nil) != stuck {
					t.Fatalf("ecs %d/%d of %d: %v", low, high, desired, err)
				}
				if err == nil {
					if 100*r.Floor < low*desired || 100*r.Ceiling > high*desired {
						t.Fatalf("ecs %d/%d of %d: %+v", low, high, desired, r)
					}
					bounds = append(bounds, r)
				}
				r, err = parseK8s(desired, fmt.Sprintf("%d%%/%d%%", high, low))
				if refused := low > 100 || low == 0 && high == 0; (err != nil) != refused {
					t.Fatalf("k8s %d%%/%d%% of %d: %v", high, low, desired, err)
				}
				if err == nil {
					bounds = append(bounds, r)
				}
			}
		}
		for _, r := range bounds {
			before, now := desired, 0
			course := r.phases()
			if len(course) > 4*desired {
				t.Fatalf("%+v: %d phases", r, len(course))
			}
			for _, p := range course {
				before, now = before-p.Stopped, now+p.Started
				if (p.Stopped > 0) == (p.Started > 0) || p.Old != before || p.New != now || before < 0 {
					t.Fatalf("%+v: %+v", r, course)
				}
				if running := before + now; running < r.Floor || running > r.Ceiling {
					t.Fatalf("%+v: %d are running", r, running)
				}
			}
			if before != 0 || now != desired {
				t.Fatalf("%+v ends with %d old and %d new", r, before, now)
			}
		}
	}
}

func TestImpossibleRollouts(t *testing.T) {
	for _, tc := range []struct {
		mode    string
		desired int
		setting string
		want    string
	}{
		{"roll", 4, "0", "want 1 to 4"},
		{"roll", 4, "5", "want 1 to 4"},
		{"ecs", 4, "100/100", "neither stop nor start"},
		{"ecs", 3, "100/110", "neither stop nor start"}, // 3.3 is 3
		{"ecs", 1, "50/150", "neither stop nor start"},
		{"ecs", 4, "101/200", `minimum healthy percent "101"`},
		{"ecs", 4, "-1/200", `minimum healthy percent "-1"`},
		{"ecs", 4, "50/99", `maximum percent "99"`},
		{"ecs", 4, "50/10001", `maximum percent "10001"`},
		{"ecs", 4, "50/x", `maximum percent "x"`},
		{"ecs", 4, "50", "slash"},
		{"k8s", 4, "0/0", "neither stop nor start"},
		{"k8s", 4, "0%/0%", "neither stop nor start"},
		{"k8s", 4, "1", "slash"},
		{"k8s", 4, "x/1", `maxSurge "x"`},
		{"k8s", 4, "x%/1", `maxSurge "x%"`},
		{"k8s", 4, "-1/1", `maxSurge "-1"`},
		{"k8s", 4, "1/101%", `maxUnavailable "101%"`},
		{"k8s", 4, "1/", `maxUnavailable ""`},
		{"k8s", 4, "1/99999999999999999999", "maxUnavailable"},
	} {
		got, err := parseRollout(tc.mode, tc.desired, tc.setting)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %s of %d: got %+v, %v; want an error with %q", tc.mode, tc.setting, tc.desired, got, err, tc.want)
		}
	}
}

func TestFleetsOf(t *testing.T) {
	members := ring.Equal("a", "b", "c")
	for _, tc := range []struct {
		bounds rollout
		kept   bool
		want   string
	}{
		{rollout{3, 2, 3}, true, "b c|b c a|c a|c a b|a b|a b c"},
		{rollout{3, 2, 3}, false, "b c|b c a.new|c a.new|c a.new b.new|a.new b.new|a.new b.new c.new"},
		{rollout{3, 3, 4}, true, "a b c spare|b c spare|b c spare a|c spare a|c spare a b|spare a b"},
		{rollout{3, 3, 6}, false, "a b c a.new b.new c.new|a.new b.new c.new"},
		{rollout{3, 3, 6}, true, "a b c spare spare-2 spare-3|spare spare-2 spare-3"},
		{rollout{3, 0, 3}, true, "|a b c"},
	} {
		var words []string
		for _, fleet := range fleetsOf(members, tc.bounds.phases(), tc.kept) {
			var names []string
			for _, m := range fleet {
				names = append(names, m.Name)
			}
			words = append(words, strings.Join(names, " "))
		}
		if got := strings.Join(words, "|"); got != tc.want {
			t.Errorf("%+v, kept %v: got %s, want %s", tc.bounds, tc.kept, got, tc.want)
		}
	}
}

func TestNewMembersHaveWeightAndZoneOfThoseTheyReplace(t *testing.T) {
	members := []ring.Member{{Name: "a", Weight: 3, Zone: "x"}, {Name: "a.new", Weight: 1, Zone: "y"}}
	fleets := fleetsOf(members, rollout{2, 2, 4}.phases(), false)
	want := []ring.Member{{Name: "a.new-2", Weight: 3, Zone: "x"}, {Name: "a.new.new", Weight: 1, Zone: "y"}}
	if got := fleets[len(fleets)-1]; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
