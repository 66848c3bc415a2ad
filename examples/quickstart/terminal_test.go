// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
)

// terminal is as much of one as the command makes use of.
type terminal struct {
	t             *testing.T
	width, height int
	lines         []string // all that was ever on it; the last height of them are on the screen
	row           int      // of the cursor
}

var up = regexp.MustCompile(`^\x1b\[(\d+)A`)

// write shows a line, which ends in \r\n as a terminal driver makes of it.
func (s *terminal) write(line string) {
	line = strings.Trim(line, "\r\n")
	if m := up.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1])
		if n >= s.height {
			s.t.Errorf("the cursor goes up by %d lines of %d", n, s.height)
		}
		s.row -= n
		line = strings.TrimPrefix(strings.TrimPrefix(line, m[0]), "\x1b[J")
		s.lines = s.lines[:s.row]
	}
	if n := utf8.RuneCountInString(line); n > s.width {
		s.t.Errorf("%d columns: %q", n, line)
	}
	s.lines = append(s.lines[:s.row], line)
	s.row++
}

// In the usual terminal no line is broken, the table is redrawn in place, and the whole verdict is to be seen in the end.
func TestTheDemonstrationFitsATerminal(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asMain+"=1")
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: usualHeight, Cols: usualWidth})
	if errors.Is(err, pty.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	s := &terminal{t: t, width: usualWidth, height: usualHeight}
	tables, table := 0, 0
	for scanner := bufio.NewScanner(screen); scanner.Scan(); { // reading fails when the process has ended
		s.write(scanner.Text())
		if strings.HasPrefix(s.lines[s.row-1], "PRODUCER  SERIES ") {
			tables++
		}
		if strings.Contains(s.lines[s.row-1], "till.duration") && strings.Contains(s.lines[s.row-1], "histogram ") {
			table++
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v", err)
	}
	if tables < 10 || table < 3*10 {
		t.Errorf("%d tables were shown, with %d of their last lines", tables, table)
	}
	last := strings.Join(s.lines[max(0, len(s.lines)-usualHeight+1):], "\n") // and a line for the prompt
	for _, want := range []string{"What the producers counted", "PLAIN ADDER", "shop/3 ", "  ok    21 of 21", "VERDICT: exact"} {
		if !strings.Contains(last, want) {
			t.Errorf("the last screen lacks %q", want)
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(readme), "What the producers counted")
	example, _, _ = strings.Cut(example, "\n```")
	if _, shown, _ := strings.Cut(last, "What the producers counted"); alike(shown) != alike(example) {
		t.Errorf("README.md shows another verdict:\n%s\nwant\n%s", alike(example), alike(shown))
	}
	if t.Failed() {
		t.Log(strings.Join(s.lines, "\n"))
	}
}

var (
	anyNumber = regexp.MustCompile(`-?\d+(\.\d+)?`)
	blanks    = regexp.MustCompile(` +`)
)

// alike removes from a text what differs from run to run.
func alike(text string) string {
	return blanks.ReplaceAllString(anyNumber.ReplaceAllString(strings.TrimSpace(text), "0"), " ")
}

func TestWrap(t *testing.T) {
	for _, tc := range []struct {
		text, want string
		indent     int
		width      int
	}{
		{"all of it", "all of it\n", 2, 9},
		{"all of it", "all of\n  it\n", 2, 8},
		{" 1.00s  the answer", " 1.00s  the\n        answer\n", 8, 12},
		{"long-word-that-is-not-broken and", "long-word-that-is-not-broken\n  and\n", 2, 10},
		{"é é é", "é é é\n", 0, 5},
	} {
		if got := wrap(tc.text, tc.indent, tc.width); got != tc.want {
			t.Errorf("wrap(%q, %d, %d) = %q, want %q", tc.text, tc.indent, tc.width, got, tc.want)
		}
	}
}
