// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2cprocessor

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/internal/keys/keystest"
)

func TestREADMEHasTheKeys(t *testing.T) {
	keystest.Reference{
		File:   "README.md",
		Config: createDefaultConfig,
		Base: map[string]any{"aggregate": []any{map[string]any{
			"metrics": []any{"*"}, "drop": map[string]any{"resource": []any{"pod"}},
		}}},
		Defaults: map[string]string{"aggregate::N::max_writers": strconv.Itoa(defaultMaxWriters)},
	}.Check(t)
}

// There is one vocabulary of outcomes: in Go, in the README, and in the attribute of the metric, which telemetry_test.go looks at.
func TestOneVocabularyOfOutcomes(t *testing.T) {
	names := goNames(t)
	require.Len(t, names, int(d2c.NumOutcomes))
	said := outcomesOfREADME(t)
	for o := range d2c.NumOutcomes {
		row, ok := said[o.String()]
		if !assert.True(t, ok, "README.md lacks %v", o) {
			continue
		}
		assert.Equal(t, names[o], row.name, "the name of %v in Go", o)
		assert.Equal(t, attributeOf(names[o]), o.String(), "the attribute for %s", names[o])
		assert.NotEmpty(t, row.todo, "what to do about %v", o)
		switch row.class {
		case "Added":
			assert.True(t, o.Added(), "%v", o)
		case "Dropped":
			assert.True(t, o.Dropped(), "%v", o)
		default:
			assert.False(t, o.Added() || o.Dropped(), "%v", o)
		}
	}
	assert.Len(t, said, len(names), "README.md has outcomes that there are not")
}

// attributeOf is the rule that the README has for names.
func attributeOf(name string) string {
	name = strings.TrimPrefix(name, "Added")
	if rest, ok := strings.CutPrefix(name, "Restarted"); ok {
		name = "Restart" + rest
	}
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "${1}_$2"))
}

// goNames returns the names of the constants, in their order.
func goNames(t *testing.T) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../d2c/outcome.go", nil, 0)
	require.NoError(t, err)
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			name := s.(*ast.ValueSpec).Names[0].Name
			if name == "NumOutcomes" {
				return names
			}
			names = append(names, name)
		}
	}
	return names
}

type outcomeRow struct{ class, name, todo string }

func outcomesOfREADME(t *testing.T) map[string]outcomeRow {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	row := regexp.MustCompile("^\\| `(\\w+)` \\| `(\\w+)` \\| [^|]+ \\| ([^|]*) \\|$")
	rows, class := map[string]outcomeRow{}, ""
	for line := range strings.Lines(string(readme)) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "**"); ok {
			class = strings.TrimSuffix(title, "**")
		}
		if m := row.FindStringSubmatch(line); m != nil {
			require.NotContains(t, rows, m[1])
			rows[m[1]] = outcomeRow{class, m[2], m[3]}
		}
	}
	return rows
}
