//! Owns the updates that read the stored rows in the order of their keys: for which columns and rows they are possible.
//! Must not know connections or transactions.
//!
//! MariaDB fills a temporary table with the rows of the statement. The types of its columns are those of the first row, which has
//! no parameters, whatever values follow. So only types are sent in this way that keep every value: numbers as the widest type,
//! and texts in a column that is wide enough for all texts of the statement. Bytes and geometries are not.

use batchsql_core::exhaustive::{Type, Values};
use batchsql_core::{ColumnType, Rows, Schema};
use batchsql_sql::mysql::update_listed;

use crate::catalog::{TableColumn, same_name};
use crate::keys::KEYS_PER_STATEMENT;
use crate::statements::{Statement, Statements};
use crate::types::{Form, Storage};

/// The widths of columns for texts, in characters. The server reserves four bytes for each.
const WIDTHS: [usize; 3] = [64, 255, 1_000];

/// The most characters of a row, so that 500 rows take 8 MB at most.
const MAX_CHARACTERS: usize = 4_000;

/// Parameters of one statement: the protocol counts them in two bytes.
const MAX_BINDS: usize = 65_535;

/// The statements of a schema.
pub(crate) struct Listed {
    types: Vec<Kind>,
    /// The most rows of a statement.
    pub(crate) max_rows: usize,
    /// By the width of its texts.
    statements: [Statements; WIDTHS.len()],
}

/// The type of a column in the statement.
enum Kind {
    /// As this expression has.
    Fixed(String),
    /// As wide as the texts.
    Text,
}

impl Listed {
    /// `None` if the rows of a schema are not sent in this way. `values` has the expression of each value.
    pub(crate) fn new(schema: &Schema, table: &[TableColumn], storage: &[Storage], values: &[&str]) -> Option<Self> {
        // Keys of other types might be compared without an index.
        let is_integer = |index: &usize| {
            let column = &schema.columns()[*index];
            let stored = table.iter().find(|found| same_name(&found.name, column.name()))?;
            let is_sent = matches!(column.column_type().exhaustive(), Type::I16 | Type::I32 | Type::I64);
            let is_stored = matches!(&*stored.data_type, "tinyint" | "smallint" | "mediumint" | "int" | "bigint");
            (is_sent && is_stored).then_some(())
        };
        schema.key_columns().iter().try_for_each(is_integer)?;
        let columns = schema.columns().iter().map(|column| column.column_type());
        let types = columns.zip(storage).zip(values).map(|((ty, storage), value)| Kind::of(ty, storage.form, value));
        let types = types.collect::<Option<Vec<Kind>>>()?;
        let binds = values.len() + schema.key_columns().len();
        Some(Self { types, max_rows: KEYS_PER_STATEMENT.min(MAX_BINDS / binds), statements: Default::default() })
    }

    /// The statement for these rows; `None` if their texts are too long.
    pub(crate) fn statement(&self, schema: &Schema, rows: Rows<'_>, values: &[&str]) -> Option<Statement> {
        let texts =
            || self.types.iter().enumerate().filter(|(_, kind)| matches!(kind, Kind::Text)).map(|(index, _)| index);
        let longest = texts().map(|index| longest(rows, index)).max().unwrap_or_default();
        let place = WIDTHS.iter().position(|width| longest <= *width)?;
        if WIDTHS[place] * texts().count() > MAX_CHARACTERS {
            return None;
        }
        Some(self.statements[place].get(rows.len(), || self.text(schema, WIDTHS[place], rows.len(), values)))
    }

    /// The text for one row, which shows whether the server supports it.
    pub(crate) fn sample(&self, schema: &Schema, values: &[&str]) -> String {
        self.text(schema, WIDTHS[0], 1, values)
    }

    fn text(&self, schema: &Schema, width: usize, rows: usize, values: &[&str]) -> String {
        let wide = format!("CAST(NULL AS CHAR({width}))");
        let types = self.types.iter().map(|kind| match kind {
            Kind::Fixed(expression) => expression.as_str(),
            Kind::Text => wide.as_str(),
        });
        update_listed(schema, values, &types.collect::<Vec<_>>(), rows)
    }
}

impl Kind {
    /// `None` for values that are not sent in this way. `value` is the expression of the value.
    fn of(ty: ColumnType, form: Form, value: &str) -> Option<Self> {
        let fixed = |ty: &str| Some(Self::Fixed(ty.to_owned()));
        match (form, ty.exhaustive()) {
            (Form::Geometry | Form::GeometryOrText, _) => None,
            _ if value != "?" => Some(Self::Fixed(value.replace('?', "NULL"))),
            // It holds them all: the length of a cast to UNSIGNED is that of its value.
            (Form::Bits, _) | (_, Type::U64) => fixed("CAST(NULL AS DECIMAL(20,0))"),
            // A BIGINT, for the same reason.
            (_, Type::Bool | Type::I16 | Type::I32 | Type::I64) => fixed("-9223372036854775807"),
            (_, Type::F32 | Type::F64) => fixed("CAST(NULL AS DOUBLE)"),
            (Form::UuidText, _) => Some(Self::Text),
            (_, Type::Bytes | Type::Uuid) => None,
            (_, Type::Decimal | Type::Text | Type::Json) => Some(Self::Text),
            (_, Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz) => Some(Self::Text),
        }
    }
}

/// The bytes of the longest text of a column, which has no more characters than bytes.
fn longest(rows: Rows<'_>, column: usize) -> usize {
    match rows.column(column).values().exhaustive() {
        Values::Text(texts) | Values::Decimal(texts) | Values::Json(texts) => {
            (0..rows.len()).map(|row| texts.get(row).len()).max().unwrap_or_default()
        }
        // A UUID as text; a calendar value is shorter.
        _ => 36,
    }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{Conflict, DynRow, Value};
    use batchsql_testkit::batch_of;

    use super::*;
    use crate::guard::Guard;
    use crate::types::Null;

    const PLAIN: Storage = Storage { form: Form::Plain, guard: Guard::None, null: Null::Unchanged };

    fn column(name: &str, data_type: &str) -> TableColumn {
        TableColumn { name: name.into(), data_type: data_type.into(), ..TableColumn::default() }
    }

    fn schema(key: ColumnType, other: ColumnType) -> Schema {
        let schema = Schema::builder("t").column("id", key).nullable("v", other);
        schema.on_conflict(Conflict::update_only(["id"])).build().unwrap()
    }

    fn listed(key: (ColumnType, &str), other: ColumnType) -> Option<Listed> {
        let table = [column("id", key.1), column("v", "any")];
        Listed::new(&schema(key.0, other), &table, &[PLAIN, PLAIN], &["?", "?"])
    }

    #[test]
    fn only_types_that_keep_their_values_are_listed() {
        let id = (ColumnType::I64, "bigint");
        for ty in ColumnType::ALL {
            let expected = !matches!(ty, ColumnType::Bytes | ColumnType::Uuid);
            assert_eq!(listed(id, ty).is_some(), expected, "{ty}");
        }
        assert!(listed((ColumnType::I16, "int"), ColumnType::I64).is_some());
        assert!(listed((ColumnType::U64, "bigint"), ColumnType::I64).is_none());
        assert!(listed((ColumnType::I64, "decimal"), ColumnType::I64).is_none());
        assert!(listed((ColumnType::Text, "varchar"), ColumnType::I64).is_none());
        let kind = |form, value| Kind::of(ColumnType::Text, form, value);
        assert!(kind(Form::GeometryOrText, "COALESCE(ST_GeomFromText(?),?)").is_none());
        assert!(matches!(kind(Form::Bits, "?"), Some(Kind::Fixed(ty)) if ty == "CAST(NULL AS DECIMAL(20,0))"));
        let computed = Kind::of(ColumnType::Decimal, Form::Plain, "CAST(? AS DECIMAL(5,2))");
        assert!(matches!(computed, Some(Kind::Fixed(ty)) if ty == "CAST(NULL AS DECIMAL(5,2))"));
    }

    #[tokio::test]
    async fn a_column_is_as_wide_as_the_longest_text() {
        let schema = schema(ColumnType::I64, ColumnType::Text);
        let listed = listed((ColumnType::I64, "bigint"), ColumnType::Text).unwrap();
        let check = async |length: usize, expected: Option<&str>| {
            let row = |text: Value| -> DynRow { schema.row().set_all([1_i64.into(), text]).unwrap().finish().unwrap() };
            let batch = batch_of([row(Value::Null), row("a".into()), row("é".repeat(length / 2).into())]).await;
            let statement = listed.statement(&schema, batch.rows(), &["?", "?"]);
            let part = expected.map(|width| format!("CAST(NULL AS CHAR({width})) AS c1"));
            assert_eq!(statement.is_some(), part.is_some(), "{length}");
            assert!(statement.is_none_or(|found| found.sql.contains(&part.unwrap_or_default())), "{length}");
        };
        check(64, Some("64")).await;
        check(66, Some("255")).await;
        check(1_000, Some("1000")).await;
        check(1_002, None).await;
    }
}
