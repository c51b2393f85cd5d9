//! Owns the SQL text of each write strategy.
//! Must not know rows, connections or the chosen strategy.

use batchsql_core::{Action, Column, ColumnType, Schema};
use batchsql_sql::{NEW, count_found, quote, quote_table, statement_from, stored_row};

use crate::field::Field;
use crate::guard::RAISE;
use crate::outcome_source::OutcomeSource;
use crate::position::IS_DURABLE;
use crate::returned_fit::Floats;

/// An insert in two versions.
#[derive(Debug)]
pub(crate) struct Insert {
    /// Returns how many rows were written.
    pub(crate) plain: Box<str>,
    /// Returns which rows, see [`crate::returned_keys`]; only if rows are identified by their keys.
    pub(crate) with_keys: Option<Box<str>>,
}

/// The statements for a batch with a temporary table, which is dropped with the transaction.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) create: Box<str>,
    pub(crate) copy: Box<str>,
    pub(crate) merge: Insert,
}

const STAGE: &str = "pg_temp.batchsql_stage";

/// `INSERT … SELECT … FROM unnest(…)`: one array per column.
pub(crate) fn unnest(schema: &Schema, fields: &[Field], outcome_source: OutcomeSource) -> Insert {
    insert(schema, fields, &unnested(fields), "pg_catalog.cardinality($1)", outcome_source)
}

/// The same with a position, as one statement that is its own transaction: the position is moved, or an error is raised.
/// Behind the arrays come the numbers of the step: to, id, epoch, from. The answer is that of [`unnest`] with keys; if no row
/// may be ignored, it is the number of rows, which are all.
///
/// The source has no rows before the position is moved, because it reads from what was moved. An error undoes what triggers
/// for statements have done for no rows.
pub(crate) fn step(schema: &Schema, fields: &[Field], outcome_source: OutcomeSource) -> Box<str> {
    let source = format!("{} AND EXISTS (SELECT FROM batchsql_p)", unnested(fields));
    let first = fields.len() + 1;
    let [to, id, epoch, from] = [first, first + 1, first + 2, first + 3];
    let moved = format!(
        "batchsql_p AS (UPDATE batchsql_positions SET sequence = ${to}, moved_to = ${to} WHERE id = ${id} AND epoch = ${epoch} AND sequence = ${from} \
         AND {IS_DURABLE} RETURNING 1)"
    );
    let plain = statement(schema, fields, &source);
    let rows = "pg_catalog.cardinality($1)";
    let n = "pg_catalog.count(*)";
    let (returning, keys, is_done) = match outcome_source {
        OutcomeSource::Keys => {
            let Keys { returning, arrays } = keys(schema, fields, rows);
            (returning, arrays, "EXISTS (SELECT FROM batchsql_p)".to_owned())
        }
        OutcomeSource::Total | OutcomeSource::Numbers => {
            ("1".to_owned(), String::new(), format!("EXISTS (SELECT FROM batchsql_p) AND {n} = {rows}"))
        }
    };
    format!(
        "WITH {moved}, batchsql_i AS ({plain} RETURNING {returning}) SELECT CASE WHEN {is_done} THEN {n} ELSE {RAISE} END{keys} FROM batchsql_i"
    )
    .into()
}

/// A statement of rows of which some may be left out, for whatever reason: a trigger, an existing row, a missing one. It returns
/// how many were written and, if not all, an array of their numbers from 1. What else it finds is an error with the code
/// [`crate::guard::RAISED`].
pub(crate) fn numbered(schema: &Schema, fields: &[Field]) -> Box<str> {
    match schema.action() {
        Action::UpdateOnly | Action::Delete => numbered_change(schema, fields),
        Action::Insert | Action::Ignore | Action::Replace | Action::Update => numbered_insert(schema, fields),
    }
}

/// Each changed row is returned with the number of the submitted one that it was found with. If two of these find one stored row,
/// the server uses one of them only: then there are more pairs than changed rows. So there are if a trigger leaves one out. One
/// submitted row may find several stored ones, in tables that inherit from this one.
fn numbered_change(schema: &Schema, fields: &[Field]) -> Box<str> {
    let source = format!("{} {QUIET}", unnested_as(fields, ",u.batchsql_n", " WITH ORDINALITY", ",batchsql_n"));
    let change = statement(schema, fields, &source);
    let pairs = count_found(schema, &unnested(fields), |column| format!("::{}", fields[column].ty));
    let (n, found) = ("pg_catalog.count(*)", "pg_catalog.count(DISTINCT n)");
    let rows = "pg_catalog.cardinality($1)";
    format!(
        "WITH batchsql_i AS ({change} RETURNING {NEW}.batchsql_n AS n) SELECT \
         CASE WHEN {n} = CASE WHEN {n} = {rows} AND {found} = {rows} THEN {n} ELSE ({pairs}) END THEN {found} ELSE {RAISE} END,\
         CASE WHEN {found} < {rows} THEN (SELECT pg_catalog.array_agg(DISTINCT n) FROM batchsql_i) END FROM batchsql_i"
    )
    .into()
}

/// The executor reads a row of the source, inserts it, and returns its columns before it reads the next one. So the number that
/// the source notes in a setting of the transaction is that of the row that is returned. If it is not (a distributed table reads
/// the source first), the numbers are equal, and the statement fails, or the setting does not exist (42704).
fn numbered_insert(schema: &Schema, fields: &[Field]) -> Box<str> {
    let plain = statement(schema, fields, &noting(fields));
    let n = "pg_catalog.count(*)";
    format!(
        "WITH batchsql_i AS ({plain} RETURNING {NOTED} AS n) SELECT CASE WHEN {n} = pg_catalog.count(DISTINCT n) THEN {n} ELSE {RAISE} END,\
         CASE WHEN {n} < pg_catalog.cardinality($1) THEN (SELECT pg_catalog.array_agg(n) FROM batchsql_i) END FROM batchsql_i"
    )
    .into()
}

/// The number of the row that is returned.
const NOTED: &str = "pg_catalog.current_setting('batchsql.row')::pg_catalog.int8";

/// The condition of a source with which notices are disabled before triggers run, which may include row values in one.
const QUIET: &str = "AND (SELECT pg_catalog.set_config('client_min_messages','error',true)) IS NOT NULL";

/// The condition of a source with which returned floats have all their digits: a session may have `extra_float_digits` of 0 or
/// less. Some servers can set nothing for a transaction, and have another default.
const ALL_DIGITS: &str = "(SELECT CASE WHEN pg_catalog.current_setting('extra_float_digits')::pg_catalog.int4 \
    OPERATOR(pg_catalog.<) 1 THEN pg_catalog.set_config('extra_float_digits','3',true) ELSE '' END) IS NOT NULL";

/// The condition of a source that fails with [`NOT_UTF8`] if something has changed the encoding of the session since it was checked:
/// then the server has read the bytes of each text as other characters. It is evaluated once for a statement.
const IS_UTF8: &str = "CASE WHEN pg_catalog.current_setting('client_encoding') OPERATOR(pg_catalog.=) 'UTF8' THEN true \
    WHEN pg_catalog.replace(pg_catalog.upper(pg_catalog.current_setting('client_encoding')), '-', '') \
    OPERATOR(pg_catalog.=) ANY ('{UTF8,UNICODE}'::pg_catalog.text[]) THEN true \
    ELSE pg_catalog.ln(pg_catalog.date_part('epoch',pg_catalog.now()) OPERATOR(pg_catalog.*) -1) IS NULL END";

/// The condition of a source with which `NULL` in the text of an array is no text, as the server has it by default.
const ARRAY_NULLS: &str = "(SELECT CASE WHEN pg_catalog.current_setting('array_nulls',true) OPERATOR(pg_catalog.=) 'off' \
    THEN pg_catalog.set_config('array_nulls','on',true) ELSE '' END) IS NOT NULL";

/// [`ARRAY_NULLS`] behind `before`, if it is needed.
fn array_nulls(before: &str, fields: &[Field]) -> String {
    let reads_array = fields.iter().any(|field| field.form.may_read_array());
    if reads_array { format!("{before}{ARRAY_NULLS}") } else { String::new() }
}

/// The code of an error of [`IS_UTF8`]; other parts of a write may raise it too.
pub(crate) const NOT_UTF8: &str = "2201E";

/// The source that notes the number of each row.
fn noting(fields: &[Field]) -> String {
    format!(
        "{} {QUIET} AND pg_catalog.set_config('batchsql.row',u.batchsql_n::pg_catalog.text,true) IS NOT NULL",
        unnested_as(fields, "", " WITH ORDINALITY", ",batchsql_n")
    )
}

/// `SELECT … FROM unnest(…)`.
fn unnested(fields: &[Field]) -> String {
    unnested_as(fields, "", "", "")
}

/// The same with further columns, a clause behind the function, and further names of its columns.
fn unnested_as(fields: &[Field], also: &str, clause: &str, more: &str) -> String {
    let arrays = fields.iter().zip(1..).map(|(field, number)| format!("${number}::{}[]", field.form.wire.sql()));
    let arrays: Vec<String> = arrays.collect();
    let names: Vec<String> = (0..fields.len()).map(|column| format!("c{column}")).collect();
    let (arrays, names) = (arrays.join(","), names.join(","));
    format!(
        "SELECT {}{also} FROM unnest({arrays}){clause} AS u({names}{more}) WHERE {IS_UTF8}{}",
        expressions(fields),
        array_nulls(" AND ", fields)
    )
}

/// `INSERT … VALUES (…), (…)`: one value per column and row.
pub(crate) fn values(schema: &Schema, fields: &[Field], rows: usize, outcome_source: OutcomeSource) -> Insert {
    let mut source = String::from("VALUES ");
    let mut number = 0;
    for row in 0..rows {
        source.push_str(if row == 0 { "(" } else { ",(" });
        for (column, field) in fields.iter().enumerate() {
            number += 1;
            if column > 0 {
                source.push(',');
            }
            // The text contains the types: the client caches a statement by its text, also after a column has
            // changed.
            let value = if row == 0 { format!("${number}::{}", field.form.wire.sql()) } else { format!("${number}") };
            source.push_str(&field.form.expression(&value));
        }
        source.push(')');
    }
    insert(schema, fields, &source, &rows.to_string(), outcome_source)
}

/// `COPY` into the table.
pub(crate) fn copy(schema: &Schema) -> String {
    let columns: Vec<String> = schema.columns().iter().map(|column| quote(column.name())).collect();
    format!("COPY {} ({}) FROM STDIN (FORMAT binary)", quote_table(schema.table()), columns.join(","))
}

/// `COPY` into a temporary table, and from there into the table.
pub(crate) fn staging(schema: &Schema, fields: &[Field], outcome_source: OutcomeSource) -> Staging {
    let columns = fields.iter().enumerate().map(|(column, field)| format!("c{column} {}", field.form.wire.sql()));
    let columns: Vec<String> = columns.collect();
    let source = format!("SELECT {} FROM {STAGE} AS u{}", expressions(fields), array_nulls(" WHERE ", fields));
    Staging {
        create: format!("CREATE TEMPORARY TABLE batchsql_stage ({}) ON COMMIT DROP", columns.join(",")).into(),
        copy: format!("COPY {STAGE} FROM STDIN (FORMAT binary)").into(),
        merge: insert(schema, fields, &source, &format!("(SELECT count(*) FROM {STAGE})"), outcome_source),
    }
}

/// The columns of `u`, converted for the columns of the table.
fn expressions(fields: &[Field]) -> String {
    let expressions = fields.iter().enumerate().map(|(column, field)| field.form.expression(&format!("u.c{column}")));
    expressions.collect::<Vec<_>>().join(",")
}

/// As [`unnest`], with the values of [`Schema::returning`] as text; `None` if there are none.
pub(crate) fn returning(schema: &Schema, fields: &[Field], floats: Floats) -> Option<Box<str>> {
    let columns = returned(schema);
    let digits = if floats == Floats::MayBeReturned { format!(" AND {ALL_DIGITS}") } else { String::new() };
    let statement = statement(schema, fields, &(unnested(fields) + &digits));
    (!columns.is_empty()).then(|| format!("{statement} RETURNING {}", columns.join(",")).into())
}

/// As [`numbered`], with the values of [`Schema::returning`] of each row as text before its number; `None` if there are none.
pub(crate) fn returning_numbered(schema: &Schema, fields: &[Field], floats: Floats) -> Option<Box<str>> {
    let columns = returned(schema);
    let named: Vec<String> =
        columns.iter().enumerate().map(|(index, column)| format!("{column} AS r{index}")).collect();
    let names: Vec<String> = (0..columns.len()).map(|index| format!("r{index}")).collect();
    let digits = if floats == Floats::MayBeReturned { format!(" AND {ALL_DIGITS}") } else { String::new() };
    let insert = statement(schema, fields, &(noting(fields) + &digits));
    let is_exact = "(SELECT pg_catalog.count(*) = pg_catalog.count(DISTINCT n) FROM batchsql_i)";
    let sql = || {
        format!(
            "WITH batchsql_i AS ({insert} RETURNING {},{NOTED} AS n) SELECT {},CASE WHEN {is_exact} THEN n ELSE {RAISE} END FROM batchsql_i",
            named.join(","),
            names.join(",")
        )
    };
    (!columns.is_empty()).then(|| sql().into())
}

/// The expressions of [`Schema::returning`].
fn returned(schema: &Schema) -> Vec<String> {
    let stored = stored_row(schema);
    let shown = |column: &Column| {
        let name = format!("{stored}.{}", quote(column.name()));
        match column.column_type() {
            ColumnType::Bytes => format!("E'\\\\x' OPERATOR(pg_catalog.||) pg_catalog.encode({name},'hex')"),
            // ISO 8601, whatever DateStyle is.
            ColumnType::Date | ColumnType::Time | ColumnType::Timestamp | ColumnType::TimestampTz => {
                format!("pg_catalog.to_json({name}) OPERATOR(pg_catalog.#>>) '{{}}'")
            }
            _ => format!("{name}::pg_catalog.text"),
        }
    };
    schema.returning().iter().map(shown).collect()
}

/// What the rule of the schema does with the rows of a source.
fn statement(schema: &Schema, fields: &[Field], source: &str) -> String {
    statement_from(schema, source, |column| format!("::{}", fields[column].ty))
}

/// A statement with the rows of a source of `rows` rows.
fn insert(schema: &Schema, fields: &[Field], source: &str, rows: &str, outcome_source: OutcomeSource) -> Insert {
    let plain = statement(schema, fields, source);
    let with_keys = (outcome_source == OutcomeSource::Keys).then(|| {
        let Keys { returning, arrays } = keys(schema, fields, rows);
        format!("WITH batchsql_i AS ({plain} RETURNING {returning}) SELECT pg_catalog.count(*){arrays} FROM batchsql_i")
            .into()
    });
    Insert { plain: plain.into(), with_keys }
}

/// How a statement `i` returns the keys of the rows that it has written.
struct Keys {
    returning: String,
    /// One array for each column of the key, if not all of the rows were written.
    arrays: String,
}

fn keys(schema: &Schema, fields: &[Field], rows: &str) -> Keys {
    // An existing row may have another form of the key than the one that was sent (1.50 for 1.5).
    let is_sent = matches!(schema.action(), Action::UpdateOnly | Action::Delete);
    let name = |column: &usize| if is_sent { format!("c{column}") } else { quote(&fields[*column].name) };
    let returned = |name: &String| if is_sent { format!("{NEW}.{name}") } else { name.clone() };
    let key: Vec<String> = schema.key_columns().iter().map(name).collect();
    // The subqueries run only if rows were ignored. Counting alone costs 1 % of a batch of 500 new rows;
    // always gathering the keys would cost 4 % (measured).
    let arrays = schema.key_columns().iter().zip(&key).map(|(column, name)| {
        let ty = fields[*column].form.wire.sql();
        let keys = format!("SELECT pg_catalog.array_agg({name}::{ty}) FROM batchsql_i");
        format!(",CASE WHEN pg_catalog.count(*) < {rows} THEN ({keys}) END")
    });
    Keys { arrays: arrays.collect(), returning: key.iter().map(returned).collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{Conflict, TableName};

    use super::*;
    use crate::real_type::RealType;
    use crate::types::form;

    /// A key, and a column of an enum.
    fn table(conflict: Conflict) -> (Schema, [Field; 2]) {
        let real = |namespace: &str, name: &str, kind| RealType {
            namespace: namespace.into(),
            name: name.into(),
            kind,
            category: ' ',
            receive: String::new(),
            modifier: -1,
            element: String::new(),
            element_oid: None,
            spelled: None,
        };
        let field = |name: &str, ty, real: RealType| {
            let quoted = format!("{}.{}", quote(&real.namespace), quote(&real.name)).into();
            Field { name: name.into(), ty: quoted, form: form(ty, &real).unwrap(), parts: None, has_one_form: true }
        };
        let schema = Schema::builder(TableName::qualified("s", "t"))
            .column("id", ColumnType::I64)
            .column("a \"b\"", ColumnType::Text)
            .on_conflict(conflict)
            .build()
            .unwrap();
        let id = field("id", ColumnType::I64, real("pg_catalog", "int8", 'b'));
        (schema, [id, field("a \"b\"", ColumnType::Text, real("s", "mood", 'e'))])
    }

    #[test]
    fn each_way_has_its_text() {
        let (schema, fields) = table(Conflict::update(["id"]));
        let rule = r#" ON CONFLICT ("id") DO UPDATE SET "a ""b"""=excluded."a ""b""""#;
        let columns = r#""s"."t" ("id","a ""b""")"#;
        let source = r#"SELECT u.c0,u.c1::"s"."mood" FROM"#;
        let arrays = format!("unnest($1::pg_catalog.int8[],$2::pg_catalog.text[]) AS u(c0,c1) WHERE {IS_UTF8}");
        let unnest = unnest(&schema, &fields, OutcomeSource::Total);
        assert_eq!(*unnest.plain, format!("INSERT INTO {columns} {source} {arrays}{rule}"));
        assert!(unnest.with_keys.is_none());
        let rows = r#"VALUES ($1::pg_catalog.int8,$2::pg_catalog.text::"s"."mood"),($3,$4::"s"."mood")"#;
        let values = values(&schema, &fields, 2, OutcomeSource::Total);
        assert_eq!(*values.plain, format!("INSERT INTO {columns} {rows}{rule}"));
        assert_eq!(copy(&schema), format!("COPY {columns} FROM STDIN (FORMAT binary)"));
        let staging = staging(&schema, &fields, OutcomeSource::Total);
        let create = "CREATE TEMPORARY TABLE batchsql_stage (c0 pg_catalog.int8,c1 pg_catalog.text) ON COMMIT DROP";
        assert_eq!(*staging.create, *create);
        assert_eq!(*staging.copy, *"COPY pg_temp.batchsql_stage FROM STDIN (FORMAT binary)");
        assert_eq!(*staging.merge.plain, format!("INSERT INTO {columns} {source} pg_temp.batchsql_stage AS u{rule}"));
    }

    #[test]
    fn rows_of_a_step_come_after_its_position() {
        let moved = &*format!(
            "WITH batchsql_p AS (UPDATE batchsql_positions SET sequence = $3, moved_to = $3 WHERE id = $4 AND epoch = $5 AND sequence = $6 \
             AND {IS_DURABLE} RETURNING 1), batchsql_i AS (INSERT INTO "
        );
        let source = &*format!(" AS u(c0,c1) WHERE {IS_UTF8} AND EXISTS (SELECT FROM batchsql_p) ON CONFLICT");
        let (schema, fields) = table(Conflict::update(["id"]));
        let all = step(&schema, &fields, OutcomeSource::Total);
        assert!(all.starts_with(moved) && all.contains(source), "{all}");
        let is_all = format!(
            " RETURNING 1) SELECT CASE WHEN EXISTS (SELECT FROM batchsql_p) AND pg_catalog.count(*) = pg_catalog.cardinality($1) \
             THEN pg_catalog.count(*) ELSE {RAISE} END FROM batchsql_i"
        );
        assert!(all.ends_with(&is_all), "{all}");
        let (schema, fields) = table(Conflict::ignore(["id"]));
        let some = step(&schema, &fields, OutcomeSource::Keys);
        assert!(some.starts_with(moved) && some.contains(source), "{some}");
        let is_moved = format!(
            r#" RETURNING "id") SELECT CASE WHEN EXISTS (SELECT FROM batchsql_p) THEN pg_catalog.count(*) ELSE {RAISE} END,CASE"#
        );
        assert!(some.contains(&is_moved), "{some}");
    }

    #[test]
    fn the_number_of_a_row_is_noted_before_it_is_inserted() {
        let (schema, fields) = table(Conflict::replace(["id"]));
        let sql = numbered(&schema, &fields);
        let source = &*format!(
            "unnest($1::pg_catalog.int8[],$2::pg_catalog.text[]) WITH ORDINALITY AS u(c0,c1,batchsql_n) WHERE {IS_UTF8} AND (SELECT"
        );
        let noted =
            "AND pg_catalog.set_config('batchsql.row',u.batchsql_n::pg_catalog.text,true) IS NOT NULL ON CONFLICT";
        let told = " RETURNING pg_catalog.current_setting('batchsql.row')::pg_catalog.int8 AS n) SELECT CASE";
        assert!([source, noted, told].iter().all(|part| sql.contains(part)), "{sql}");
    }

    #[test]
    fn keys_are_asked_for_only_where_rows_were_ignored() {
        let (schema, fields) = table(Conflict::ignore(["a \"b\"", "id"]));
        let insert = unnest(&schema, &fields, OutcomeSource::Keys);
        let with_keys = insert.with_keys.unwrap();
        assert!(
            with_keys
                .starts_with(&format!("WITH batchsql_i AS ({} RETURNING \"a \"\"b\"\"\",\"id\") SELECT", insert.plain))
        );
        let (if_fewer, n) = ("CASE WHEN pg_catalog.count(*) < pg_catalog.cardinality($1) THEN", "pg_catalog.array_agg");
        let keys = format!(
            r#"count(*),{if_fewer} (SELECT {n}("a ""b"""::pg_catalog.text) FROM batchsql_i) END,{if_fewer} (SELECT {n}("id"::pg_catalog.int8) FROM batchsql_i) END FROM batchsql_i"#
        );
        assert!(with_keys.ends_with(&keys), "{with_keys}");
    }
}
