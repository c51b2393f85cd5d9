//! Owns what a table looks like to the pipeline: name, columns, conflict rule, interned identity.
//! Must not know SQL text or any database.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use crate::model::column::Column;
use crate::model::conflict::{Action, Conflict, Target};
use crate::model::expr::{Assignment, Set};
use crate::model::rules::{self, Resolved};
use crate::model::schema_error::SchemaError;
use crate::model::table_name::TableName;
use crate::model::value::ColumnType;

/// The identity of a schema: equal content gives equal ids while any copy of the schema is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(usize);

impl SchemaId {
    /// A small number: ids of dropped schemas are used again, so ids stay below the largest number of schemas that
    /// existed at once.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// The shape of the rows of one table. Cheap to clone and to compare.
///
/// ```
/// use batchsql_core::{ColumnType, Conflict, Row, Schema};
/// let events = Schema::builder("events")
///     .column("id", ColumnType::I64)
///     .nullable("body", ColumnType::Text)
///     .on_conflict(Conflict::ignore(["id"]))
///     .build()?;
/// let row = events.row().set("id", 1_i64)?.set("body", "hi")?.finish()?;
/// assert_eq!(row.schema(), &events);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Schema(Arc<Inner>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content {
    table: TableName,
    columns: Box<[Column]>,
    conflict: Conflict,
    overrides_identity: bool,
    returning: Box<[Column]>,
}

struct Inner {
    id: SchemaId,
    content: Content,
    /// `namespace.table`, stored because every metric and log line needs it.
    display: Box<str>,
    rule: Resolved,
    fixed_len: usize,
    /// Projections created for rows that leave columns out, by the set of present columns.
    projections: Mutex<HashMap<Box<[bool]>, Weak<Inner>>>,
    /// The schema of deletes of its rows, once it was asked for.
    deletion: Mutex<Weak<Inner>>,
}

impl Schema {
    /// Starts a schema for `table`.
    pub fn builder(table: impl Into<TableName>) -> SchemaBuilder {
        SchemaBuilder {
            table: table.into(),
            columns: Vec::new(),
            conflict: Conflict::none(),
            overrides_identity: false,
            returning: Vec::new(),
        }
    }

    /// The identity by content.
    pub fn id(&self) -> SchemaId {
        self.0.id
    }

    /// The table's name.
    pub fn table(&self) -> &TableName {
        &self.0.content.table
    }

    /// `namespace.table` without quoting, for logs and metric labels.
    pub fn table_display(&self) -> &str {
        &self.0.display
    }

    /// The columns in declaration order, which is the order of every statement.
    pub fn columns(&self) -> &[Column] {
        &self.0.content.columns
    }

    /// The conflict rule as declared.
    pub fn conflict(&self) -> &Conflict {
        &self.0.content.conflict
    }

    /// What the conflict rule does.
    pub fn action(&self) -> Action {
        self.0.content.conflict.action
    }

    /// How the database finds the unique index of the key.
    pub fn target(&self) -> &Target {
        &self.0.content.conflict.target
    }

    /// Indexes of the key columns, empty for [`Conflict::none`].
    pub fn key_columns(&self) -> &[usize] {
        &self.0.rule.key
    }

    /// Indexes of the columns that an update changes, without those that the rows have no value for; empty for plain inserts,
    /// `ignore`, `delete`, and tables whose columns are all part of the key.
    pub fn update_columns(&self) -> &[usize] {
        &self.0.rule.update
    }

    /// What an update does with each column that it changes, also with columns that the rows have no value for.
    #[doc(hidden)]
    pub fn assignments(&self) -> &[Assignment] {
        &self.0.rule.assignments
    }

    /// The index of the column of [`Conflict::only_if_newer`].
    pub fn version_column(&self) -> Option<usize> {
        self.0.rule.version
    }

    /// Whether rows are inserted, and an existing row is left as it is: `ignore`, or an update that changes nothing.
    pub fn ignores_existing(&self) -> bool {
        match self.action() {
            Action::Ignore => true,
            Action::Replace | Action::Update => self.assignments().is_empty(),
            Action::Insert | Action::UpdateOnly | Action::Delete => false,
        }
    }

    /// Whether a row may end as `Ignored` by its rule, triggers aside.
    pub fn may_ignore(&self) -> bool {
        self.ignores_existing()
            || self.version_column().is_some()
            || matches!(self.action(), Action::UpdateOnly | Action::Delete)
    }

    /// Whether every assignment overwrites its column.
    pub fn only_overwrites(&self) -> bool {
        self.assignments().iter().all(|assignment| assignment.set == Set::Overwrite)
    }

    /// Whether values may be given for identity columns that the database would fill, see
    /// [`SchemaBuilder::overriding_system_value`].
    pub fn overrides_identity(&self) -> bool {
        self.0.content.overrides_identity
    }

    /// The columns whose values the database returns for each written row, see [`SchemaBuilder::returning`].
    pub fn returning(&self) -> &[Column] {
        &self.0.content.returning
    }

    /// Whether writing the same rows again changes nothing, triggers aside. Not for plain inserts, not for
    /// [`Expr::add`](crate::Expr::add) and [`Expr::raw`](crate::Expr::raw), and not with a partial index
    /// ([`Conflict::on_partial_index`]): the rows outside are inserted again.
    pub fn is_repeatable(&self) -> bool {
        self.conflict().is_repeatable()
    }

    /// Whether each repeat changes a row once more, so that at-least-once delivery does not repeat either. For feeds.
    #[doc(hidden)]
    pub fn counts_repeats(&self) -> bool {
        self.conflict().counts_repeats()
    }

    /// The schema of deletes by the key of this one: its key columns, and [`Conflict::delete`]. A row of it deletes the
    /// row with its key, in order with the rows of this schema that have the same key.
    ///
    /// ```
    /// use batchsql_core::{ColumnType, Conflict, Schema};
    /// let orders = Schema::builder("orders")
    ///     .column("id", ColumnType::I64)
    ///     .column("total", ColumnType::Decimal)
    ///     .on_conflict(Conflict::update(["id"]))
    ///     .build()?;
    /// let gone = orders.deletion()?.row().set("id", 7_i64)?.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The schema has no key: its conflict rule is [`Conflict::none`].
    pub fn deletion(&self) -> Result<Self, SchemaError> {
        let mut known = self.0.deletion.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.upgrade() {
            return Ok(Self(known));
        }
        let content = &self.0.content;
        if self.key_columns().is_empty() {
            let problem = "rows cannot be deleted by key, because the schema names no key; give it a conflict \
                           rule with one: Conflict::update([\"id\"]), #[row(key = \"id\")]";
            return Err(SchemaError::new(&content.table, problem.into()));
        }
        let is_key = |index: &usize| self.key_columns().contains(index);
        let columns = (0..content.columns.len()).filter(is_key).map(|index| content.columns[index].clone()).collect();
        let conflict = Conflict::delete(content.conflict.key());
        let table = content.table.clone();
        let content = Content { table, columns, conflict, overrides_identity: false, returning: Box::default() };
        let schema = intern(content)?;
        *known = Arc::downgrade(&schema.0);
        Ok(schema)
    }

    /// The index of a column by name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name() == name)
    }

    /// Bytes that every row takes in a batch before its variable parts.
    pub fn fixed_row_len(&self) -> usize {
        self.0.fixed_len
    }

    /// The same table and rule with only these columns, in the order of this schema: the schema of rows that leave out the
    /// others.
    ///
    /// ```
    /// use batchsql_core::{ColumnType, Schema};
    /// let notes = Schema::builder("notes").column("id", ColumnType::I64).nullable("text", ColumnType::Text).build()?;
    /// let row = notes.row().set("id", 1_i64)?.finish()?;
    /// assert_eq!(batchsql_core::Row::schema(&row), &notes.with_columns(["id"])?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A name is not a column, no column is left, or a column of the key is.
    pub fn with_columns<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, SchemaError> {
        let mut present = vec![false; self.columns().len()];
        for name in names {
            let index = self.column_index(name).ok_or_else(|| {
                SchemaError::new(self.table(), format!("{name:?} is not a declared column; check the name"))
            })?;
            present[index] = true;
        }
        self.project(&present)
    }

    /// The same schema for the table of this name in a namespace, if its own name has none.
    #[doc(hidden)]
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        let table = self.table();
        if table.namespace().is_some() || namespace.is_empty() {
            return self.clone();
        }
        let table = TableName::qualified(namespace, table.name());
        intern(Content { table, ..self.0.content.clone() }).unwrap_or_else(|_| self.clone())
    }

    /// The same table with only the columns marked present: the statement shape of rows that leave
    /// columns to the database's default.
    pub(crate) fn project(&self, present: &[bool]) -> Result<Self, SchemaError> {
        if present.iter().all(|p| *p) {
            return Ok(self.clone());
        }
        let mut projections = self.0.projections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = projections.get(present).and_then(Weak::upgrade) {
            return Ok(Self(known));
        }
        let content = &self.0.content;
        let columns = content.columns.iter().zip(present).filter(|(_, p)| **p).map(|(c, _)| c.clone());
        let columns: Vec<Column> = columns.collect();
        let conflict = rules::projected(&content.conflict, &content.columns, &columns)
            .map_err(|problem| SchemaError::new(&content.table, problem))?;
        let Content { table, overrides_identity, returning, .. } = content.clone();
        let schema = intern(Content { table, columns: columns.into(), conflict, overrides_identity, returning })?;
        projections.retain(|_, known| known.strong_count() > 0);
        projections.insert(present.into(), Arc::downgrade(&schema.0));
        Ok(schema)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Content { table, columns, conflict, .. } = &self.0.content;
        f.debug_struct("Schema")
            .field("table", table)
            .field("columns", columns)
            .field("conflict", conflict)
            .finish_non_exhaustive()
    }
}

/// Collects columns and the conflict rule of a [`Schema`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct SchemaBuilder {
    table: TableName,
    columns: Vec<Column>,
    conflict: Conflict,
    overrides_identity: bool,
    returning: Vec<Column>,
}

impl SchemaBuilder {
    /// Adds a column that every row must carry and that is never `NULL`.
    pub fn column(self, name: impl Into<Box<str>>, ty: ColumnType) -> Self {
        self.push(name.into(), ty, false)
    }

    /// Adds a column that may be `NULL`, and that a dynamic row may leave out: then the database's default applies on
    /// insert, and an update does not change the column.
    pub fn nullable(self, name: impl Into<Box<str>>, ty: ColumnType) -> Self {
        self.push(name.into(), ty, true)
    }

    /// Sets the conflict rule; the default is [`Conflict::none`].
    pub fn on_conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// Writes the submitted values of identity columns that are `GENERATED ALWAYS` (PostgreSQL: `OVERRIDING SYSTEM
    /// VALUE`). Other databases always accept values for such columns.
    pub fn overriding_system_value(mut self) -> Self {
        self.overrides_identity = true;
        self
    }

    /// Lets the database return the value of a column for each written row, for example a generated key or a default. It
    /// need not be a declared column. Receipts have the values: [`Receipt::with_returned`](crate::Receipt::with_returned).
    ///
    /// PostgreSQL, SQLite and MariaDB can. It costs: see `docs/databases.md`, "Returned values".
    pub fn returning(mut self, name: impl Into<Box<str>>, ty: ColumnType) -> Self {
        self.returning.push(Column::new(name.into(), ty, true));
        self
    }

    /// Checks everything and interns the schema.
    ///
    /// # Errors
    /// No columns, an empty or repeated column name, an empty table name, a name with a NUL
    /// character, a conflict rule that names an unknown, repeated or nullable key column, or a refinement of a rule that
    /// does not fit it: [`Conflict`] says which.
    pub fn build(self) -> Result<Schema, SchemaError> {
        let Self { table, columns, conflict, overrides_identity, returning } = self;
        let (columns, returning) = (columns.into(), returning.into());
        intern(Content { table, columns, conflict, overrides_identity, returning })
    }

    fn push(mut self, name: Box<str>, ty: ColumnType, nullable: bool) -> Self {
        self.columns.push(Column::new(name, ty, nullable));
        self
    }
}

/// Every live schema by content. Dead entries are swept when the table has doubled.
static INTERNER: LazyLock<Mutex<Interner>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Interner {
    known: HashMap<Content, Weak<Inner>>,
    sweep_at: usize,
}

/// Ids that are free, and the first one that was never used. Separate from the interner, because a schema may be
/// dropped while the interner is locked.
static IDS: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

fn next_id() -> SchemaId {
    let (free, next) = &mut *IDS.lock().unwrap_or_else(PoisonError::into_inner);
    SchemaId(free.pop().unwrap_or_else(|| {
        *next += 1;
        *next - 1
    }))
}

impl Drop for Inner {
    fn drop(&mut self) {
        IDS.lock().unwrap_or_else(PoisonError::into_inner).0.push(self.id.0);
    }
}

fn intern(content: Content) -> Result<Schema, SchemaError> {
    let rule = check(&content)?;
    let mut interner = INTERNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = interner.known.get(&content).and_then(Weak::upgrade) {
        return Ok(Schema(known));
    }
    if interner.known.len() >= interner.sweep_at {
        interner.known.retain(|_, inner| inner.strong_count() > 0);
        interner.sweep_at = (interner.known.len() * 2).max(64);
    }
    let inner = Arc::new(Inner {
        id: next_id(),
        display: content.table.to_string().into(),
        fixed_len: content.columns.iter().map(|c| c.column_type().fixed_len() + usize::from(c.is_nullable())).sum(),
        rule,
        content: content.clone(),
        projections: Mutex::default(),
        deletion: Mutex::default(),
    });
    interner.known.insert(content, Arc::downgrade(&inner));
    Ok(Schema(inner))
}

/// Checks a schema's content and resolves its rule to indexes.
fn check(content: &Content) -> Result<Resolved, SchemaError> {
    let table = &content.table;
    let error = |problem: String| Err(SchemaError::new(table, problem));
    if table.name().is_empty() || table.namespace() == Some("") {
        return error("the table name is empty; give the name of an existing table".into());
    }
    if content.columns.is_empty() {
        return error("it has no columns; add at least one with .column(name, type)".into());
    }
    let returned = content.returning.iter().map(Column::name);
    let all_names = content.columns.iter().map(Column::name).chain(returned.clone());
    let all_names = all_names.chain([table.name()]).chain(table.namespace());
    if all_names.clone().any(|name| name.contains('\0')) {
        return error("a name contains a NUL character, which no database accepts".into());
    }
    for (index, column) in content.columns.iter().enumerate() {
        if column.name().is_empty() {
            return error(format!("column {} has an empty name", index + 1));
        }
        if content.columns[..index].iter().any(|earlier| earlier.name() == column.name()) {
            return error(format!("column {:?} is declared twice", column.name()));
        }
    }
    for (index, column) in content.returning.iter().enumerate() {
        if column.name().is_empty() {
            return error("a returned column has an empty name".into());
        }
        if returned.clone().take(index).any(|earlier| earlier == column.name()) {
            return error(format!("column {:?} is returned twice", column.name()));
        }
    }
    rules::resolve(&content.conflict, &content.columns).or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_columns() -> SchemaBuilder {
        Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text)
    }

    #[test]
    fn equal_content_is_one_schema() {
        let (a, b) = (two_columns().build().unwrap(), two_columns().build().unwrap());
        assert_eq!(a, b);
        assert!(Arc::ptr_eq(&a.0, &b.0));
        let other = two_columns().on_conflict(Conflict::ignore(["id"])).build().unwrap();
        assert_ne!(a, other);
    }

    #[test]
    fn dead_schemas_are_swept() {
        for n in 0..1000 {
            Schema::builder(format!("sweep_{n}")).column("id", ColumnType::I64).build().unwrap();
        }
        let interner = INTERNER.lock().unwrap();
        assert!(interner.known.len() < 500, "{} entries kept", interner.known.len());
    }

    #[test]
    fn update_columns_default_to_every_other_column() {
        let schema = two_columns().on_conflict(Conflict::update(["id"])).build().unwrap();
        assert_eq!((schema.key_columns(), schema.update_columns()), (&[0][..], &[1][..]));
    }

    #[test]
    fn a_projection_keeps_the_table_and_drops_columns() {
        let schema = two_columns().on_conflict(Conflict::update_columns(["id"], ["note"])).build().unwrap();
        let only_id = schema.project(&[true, false]).unwrap();
        assert_eq!(only_id.columns().len(), 1);
        assert!(only_id.update_columns().is_empty());
        assert_eq!(only_id, schema.project(&[true, false]).unwrap());
        assert_eq!(schema.project(&[true, true]).unwrap(), schema);
    }

    #[test]
    fn deletes_have_the_key_columns_of_their_schema() {
        let schema = Schema::builder("t").column("note", ColumnType::Text).column("b", ColumnType::I64);
        let schema = schema.column("a", ColumnType::I64).on_conflict(Conflict::update(["a", "b"])).build().unwrap();
        let deletion = schema.deletion().unwrap();
        let names: Vec<&str> = deletion.columns().iter().map(Column::name).collect();
        assert_eq!((&*names, deletion.key_columns()), (&["b", "a"][..], &[1, 0][..]));
        assert_eq!((deletion.action(), deletion.update_columns()), (Action::Delete, &[][..]));
        assert_eq!(schema.deletion().unwrap(), deletion);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |builder: SchemaBuilder, part: &str| {
            let message = builder.build().unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        };
        check(Schema::builder("t"), "no columns");
        check(Schema::builder("").column("a", ColumnType::I64), "table name is empty");
        check(Schema::builder("t").column("", ColumnType::I64), "column 1 has an empty name");
        check(two_columns().column("id", ColumnType::I64), "\"id\" is declared twice");
        check(two_columns().column("a\0b", ColumnType::I64), "NUL");
        check(two_columns().on_conflict(Conflict::ignore(["nope"])), "\"nope\" is not a declared column");
        check(two_columns().on_conflict(Conflict::ignore(["id", "id"])), "named twice");
        check(two_columns().on_conflict(Conflict::ignore(Vec::<String>::new())), "names no key column");
        check(two_columns().on_conflict(Conflict::replace(["note"])), "nullable");
        check(two_columns().on_conflict(Conflict::update_columns(["id"], ["id"])), "both a key and an update");
        let returned = |name: &str| two_columns().returning("id", ColumnType::I64).returning(name, ColumnType::I64);
        check(returned("id"), "\"id\" is returned twice");
        check(returned(""), "returned column has an empty name");
        let plain = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        assert!(plain.deletion().unwrap_err().to_string().contains("rows cannot be deleted by key"));
    }
}
