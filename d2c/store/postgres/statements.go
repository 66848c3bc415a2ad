// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Appends come as arrays in the order of the logs' numbers, and the entries as one value, of which each has a part: an array of values
// would be copied twice more. Two that insert the same rows do it in the same order, so that they never wait for each other.
const appends = `WITH a AS MATERIALIZED (
	SELECT * FROM unnest($2::int4[], $3::int8[], $4::int8[], $5::int8[], $6::int4[], $7::int4[]) AS a (log, number, id, next, first, size)
)`

// What a log has up to a position is one row of it or the other. The share of the lock is what a statement has that began before
// others appended, and made a snapshot of what they appended: without it, the number that it wants is free again. A snapshot changes the row
// of the log before it deletes entries, so either it waits for us, or we find the row changed.
const ends = `ends AS MATERIALIZED (
	SELECT a.* FROM a JOIN {schema}.logs l ON l.name = $1 AND l.log = a.log AND l.number <= a.number
	WHERE l.number = a.number AND l.id = a.id OR a.id = (
		SELECT e.id FROM {schema}.entries e WHERE e.name = $1 AND e.log = a.log AND e.number = a.number)
	FOR SHARE OF l
)`

const insert = `INSERT INTO {schema}.entries (name, log, number, id, entry)
	SELECT $1, log, number + 1, next, substring($8::bytea FROM first FOR size) FROM ends`

// statements are those of a schema, which each connection prepares once.
type statements struct {
	// appendAll appends entries to logs that are not empty, all or none: if another is faster, that is a unique violation.
	appendAll string
	// appendSome does all that a Driver must. To ask for conflicts first costs the server a fifth more.
	appendSome string
	read       string
	compact    string
}

func statementsOf(schema string) statements {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{schema}", pgx.Identifier{schema}.Sanitize()) }
	return statements{
		appendAll: in(appends + ", " + ends + " " + insert + " ORDER BY log RETURNING log"),

		// A statement does not see the rows of logs that it begins itself. Where another begins the same log meanwhile it sees neither
		// row, and that one was first.
		appendSome: in(appends + `, begun AS (
	INSERT INTO {schema}.logs (name, log, number, id)
	SELECT $1, log, 0, 0 FROM a WHERE number = 0 AND id = 0 AND size > 0 ORDER BY log
	ON CONFLICT DO NOTHING RETURNING log
), there AS ` + strings.TrimPrefix(ends, "ends AS ") + `, ends AS (
	SELECT a.* FROM a JOIN begun USING (log) UNION ALL SELECT * FROM there WHERE size > 0
), done AS (
	` + insert + ` ORDER BY log ON CONFLICT DO NOTHING RETURNING log
)
SELECT log FROM done
UNION ALL
SELECT log FROM there WHERE size = 0
	AND (SELECT e.id FROM {schema}.entries e WHERE e.name = $1 AND e.log = there.log AND e.number = there.number + 1) IS NULL
UNION ALL
SELECT log FROM a WHERE size = 0 AND number = 0 AND id = 0
	AND NOT EXISTS (SELECT FROM {schema}.logs l WHERE l.name = $1 AND l.log = a.log)`),

		// The first row is where the rest begins.
		read: in(`WITH l AS MATERIALIZED (
	SELECT number, id, snapshot FROM {schema}.logs WHERE name = $1 AND log = $2
	UNION ALL
	SELECT 0, 0, NULL WHERE NOT EXISTS (SELECT FROM {schema}.logs WHERE name = $1 AND log = $2)
), f AS MATERIALIZED (
	SELECT $3::int8 AS number, $4::int8 AS id, NULL::bytea AS snapshot FROM l WHERE number = $3 AND id = $4 OR number < $3 AND EXISTS (
		SELECT FROM {schema}.entries e WHERE e.name = $1 AND e.log = $2 AND e.number = $3 AND e.id = $4)
), b AS MATERIALIZED (
	SELECT * FROM f UNION ALL SELECT * FROM l WHERE NOT EXISTS (SELECT FROM f)
)
SELECT number, id, snapshot FROM b
UNION ALL
(SELECT number, id, entry FROM {schema}.entries WHERE name = $1 AND log = $2 AND number > (SELECT number FROM b)
	ORDER BY name, log, number)`),

		compact: in(`WITH moved AS (
	UPDATE {schema}.logs SET number = $3, id = $4, snapshot = $5
	WHERE name = $1 AND log = $2 AND number < $3
		AND EXISTS (SELECT FROM {schema}.entries e WHERE e.name = $1 AND e.log = $2 AND e.number = $3 AND e.id = $4)
	RETURNING log
)
DELETE FROM {schema}.entries WHERE name = $1 AND log = $2 AND number <= $3 AND EXISTS (SELECT FROM moved)`),
	}
}

// tables are what statements are about.
//
// Neither entries nor snapshots are compressed: most of the server's work would be that, for numbers that have little in common. Entries
// stay in their rows as far as a page allows: elsewhere they need an index of their own.
//
// All entries are deleted soon. So dead rows are looked for by their number alone, however many live, at full speed; and an empty end of
// a table is kept, because to give it back stops everybody for a moment.
const tables = `CREATE TABLE IF NOT EXISTS {schema}.version (version integer NOT NULL);
CREATE TABLE IF NOT EXISTS {schema}.logs (
	name text COLLATE "C", log integer, number bigint NOT NULL, id bigint NOT NULL, snapshot bytea, PRIMARY KEY (name, log)
) WITH (fillfactor = 50, {vacuum}, toast.{vacuum});
ALTER TABLE {schema}.logs ALTER snapshot SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS {schema}.entries (
	name text COLLATE "C", log integer, number bigint, id bigint NOT NULL, entry bytea NOT NULL, PRIMARY KEY (name, log, number)
) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 100000, {vacuum}, toast.{vacuum});
ALTER TABLE {schema}.entries ALTER entry SET STORAGE EXTERNAL;
INSERT INTO {schema}.version SELECT {version} WHERE NOT EXISTS (SELECT FROM {schema}.version);
`

var vacuum = []string{
	"autovacuum_vacuum_threshold = 10000", "autovacuum_vacuum_scale_factor = 0", "autovacuum_vacuum_cost_delay = 0", "vacuum_truncate = off",
}

func tablesIn(schema string) string {
	return strings.NewReplacer(
		"toast.{vacuum}", "toast."+strings.Join(vacuum, ", toast."),
		"{vacuum}", strings.Join(vacuum, ", "),
		"{schema}", pgx.Identifier{schema}.Sanitize(),
		"{version}", fmt.Sprint(version),
	).Replace(tables)
}

// SQL returns the statements that create the tables and let user use them, for an administrator to run, so that the users of
// a Driver need no permission to create anything. It does not change existing tables.
func SQL(schema, user string) string {
	s := pgx.Identifier{schema}.Sanitize()
	u := pgx.Identifier{user}.Sanitize()
	return "CREATE SCHEMA IF NOT EXISTS " + s + ";\n" + tablesIn(schema) + grants(s, u)
}

func grants(schema, user string) string {
	return fmt.Sprintf("GRANT USAGE ON SCHEMA %[1]s TO %[2]s;\n"+
		"GRANT SELECT ON %[1]s.version TO %[2]s;\n"+
		"GRANT SELECT, INSERT, UPDATE, DELETE ON %[1]s.logs, %[1]s.entries TO %[2]s;\n", schema, user)
}
