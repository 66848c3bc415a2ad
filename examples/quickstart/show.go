// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/term"
)

// board keeps the latest sample of each series and what was wrong with any sample before it: the things a backend for
// cumulative metrics would choke on.
type board struct {
	tamper func(pmetric.Metrics) // changes batches before they are looked at, one after the other; nil but in tests

	mu     sync.Mutex
	series map[string]*shown // by identity
	points int               // samples that came in
	events []string          // what a person should know happened and nobody has shown yet
	faults []string          // what should not have happened, the first maxFaults of it
	began  time.Time
}

// maxFaults bounds what a board remembers of a stranger's misbehaviour.
const maxFaults = 100

type shown struct {
	label
	latest  sample
	samples int // with a new time
	again   int // the latest one repeated, same time and same value: harmless
	moves   int // of the start
	faults  int // of any sort
}

func newBoard() *board { return &board{series: map[string]*shown{}, began: time.Now()} }

// note records an event; it is safe for concurrent use.
func (b *board) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, fmt.Sprintf("%5.2fs  ", time.Since(b.began).Seconds())+fmt.Sprintf(format, args...))
}

// take looks at a batch and keeps nothing of it but copies; it is safe for concurrent use.
func (b *board) take(md pmetric.Metrics) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tamper != nil {
		b.tamper(md)
	}
	eachSample(md, func(identity string, l label, s sample) {
		b.points++
		known := b.series[identity]
		if known == nil {
			known = &shown{label: l, latest: s, samples: 1}
			b.series[identity] = known
			if s.delta {
				b.fault(known, "is still delta")
			}
			return
		}
		before := known.latest
		known.latest = s
		if s.kind == kindGauge || s.kind == kindSummary {
			known.samples++
			return
		}
		switch {
		case s.start != before.start:
			known.moves++
			b.fault(known, "start moved from %s to %s", instant(before.start), instant(s.start))
		case s.fellFrom(before) != "":
			b.fault(known, "%s under one start", s.fellFrom(before))
		}
		switch {
		case s.at > before.at:
			known.samples++
		case s.at < before.at:
			b.fault(known, "time went back from %s to %s", instant(before.at), instant(s.at))
		case s.diff(before) == "":
			known.again++
		default:
			b.fault(known, "two different samples at one time: %s", s.diff(before))
		}
	})
}

func (b *board) fault(s *shown, format string, args ...any) {
	if s.faults++; len(b.faults) < maxFaults {
		b.faults = append(b.faults, s.producer+" "+s.series()+": "+fmt.Sprintf(format, args...))
	}
}

// news returns the events since the last call and the number of samples so far.
func (b *board) news() ([]string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events, b.points
}

// rows returns a copy of all series, sorted for people.
func (b *board) rows() []shown {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]shown, 0, len(b.series))
	for _, s := range b.series {
		rows = append(rows, *s)
	}
	slices.SortFunc(rows, func(x, y shown) int {
		return strings.Compare(x.producer+"\x00"+x.series(), y.producer+"\x00"+y.series())
	})
	return rows
}

// table renders the series as text.
func (b *board) table() string {
	rows := b.rows()
	if len(rows) == 0 {
		return "(nothing has arrived yet)\n"
	}
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PRODUCER\tSERIES\tTYPE\tTOTAL\t\tCOVERS\tSAMPLES\t")
	last := ""
	for _, r := range rows {
		producer := clip(r.producer, 28)
		if producer == last {
			producer = ""
		} else {
			last = producer
		}
		covers, notes := "", ""
		if d := r.latest.covers(); d > 0 {
			covers = fmt.Sprintf("%.2fs", d.Seconds())
		}
		if r.again > 0 {
			notes += fmt.Sprintf(" +%d again", r.again)
		}
		if r.moves > 0 {
			notes += fmt.Sprintf(", start moved %dx", r.moves)
		}
		if others := r.faults - r.moves; others > 0 {
			notes += fmt.Sprintf(", %d FAULTS", others)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d%s\t\n", producer, clip(r.series(), 44), r.latest.typeName(), r.latest.value(),
			r.latest.shape(), covers, r.samples, notes)
	}
	_ = w.Flush() // into memory
	return trimLines(out.String())
}

// trimLines removes the blanks that a tabwriter leaves at the end of lines.
func trimLines(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		out.WriteString(strings.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	return out.String()
}

// shape draws the buckets of a histogram, at most sixteen bars wide, or nothing.
func (s sample) shape() string {
	var counts []uint64
	switch s.kind {
	case kindHistogram:
		counts = s.buckets
	case kindExponential:
		if len(s.positive) == 0 {
			return ""
		}
		lowest, highest := int32(1<<31-1), int32(-1<<31)
		for i := range s.positive {
			lowest, highest = min(lowest, i), max(highest, i)
		}
		width := (int64(highest)-int64(lowest))/16 + 1
		counts = make([]uint64, (int64(highest)-int64(lowest))/width+1)
		for i, n := range s.positive {
			counts[(int64(i)-int64(lowest))/width] += n
		}
	default:
		return ""
	}
	if len(counts) > 16 || len(counts) == 0 {
		return ""
	}
	bars, most := []rune("▁▂▃▄▅▆▇█"), max(1, slices.Max(counts))
	var out strings.Builder
	for _, n := range counts {
		if n == 0 {
			out.WriteRune(' ')
			continue
		}
		out.WriteRune(bars[min(uint64(len(bars)-1), n*uint64(len(bars))/most)])
	}
	return out.String()
}

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

// screen shows a board while it changes: redrawn in place in a terminal, as snapshots elsewhere.
type screen struct {
	board *board
	out   io.Writer
	stop  func() // returns when nothing more will be written; call it once
}

// startScreen begins to show b on out. Where out is no terminal it prints a snapshot of what has changed every so often.
func startScreen(b *board, out io.Writer, every time.Duration) *screen {
	s := &screen{board: b, out: out}
	file, _ := out.(*os.File)
	live := file != nil && term.IsTerminal(int(file.Fd()))
	if live {
		every = 200 * time.Millisecond
	}
	quit, done := make(chan struct{}), make(chan struct{})
	s.stop = func() {
		close(quit)
		<-done
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		if live {
			s.redraw(file, tick.C, quit)
		} else {
			s.snapshots(tick.C, quit)
		}
	}()
	return s
}

// snapshots prints events and tables one after the other.
func (s *screen) snapshots(tick <-chan time.Time, quit <-chan struct{}) {
	points := 0
	for {
		ended := false
		select {
		case <-tick:
		case <-quit:
			ended = true
		}
		events, now := s.board.news()
		for _, e := range events {
			fmt.Fprintln(s.out, e)
		}
		if ended {
			return
		}
		if now != points {
			points = now
			fmt.Fprintf(s.out, "\nafter %.1fs, %d samples:\n%s\n", time.Since(s.board.began).Seconds(), points, s.board.table())
		}
	}
}

// redraw keeps the table at the bottom of the terminal; in the end only the events stay.
func (s *screen) redraw(terminal *os.File, tick <-chan time.Time, quit <-chan struct{}) {
	lines := 0
	for {
		ended := false
		select {
		case <-tick:
		case <-quit:
			ended = true
		}
		if lines > 0 {
			fmt.Fprintf(s.out, "\r\x1b[%dA\x1b[J", lines) // up to where the table began, and clear from there
		}
		events, _ := s.board.news()
		for _, e := range events {
			fmt.Fprintln(s.out, e)
		}
		if ended {
			return
		}
		width, height, err := term.GetSize(int(terminal.Fd()))
		if err != nil {
			width, height = 80, 24
		}
		rows := strings.Split(strings.TrimSuffix(s.board.table(), "\n"), "\n")
		if limit := max(3, height-2); len(rows) > limit {
			rows = append(rows[:limit-1], fmt.Sprintf("... and %d more; the terminal is too low for all", len(rows)-limit+1))
		}
		for _, row := range rows {
			fmt.Fprintln(s.out, clip(row, width))
		}
		lines = len(rows)
	}
}
