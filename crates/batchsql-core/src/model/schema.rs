//! Owns what a table looks like to the pipeline: name, columns, conflict rule, interned identity.
//! Must not know SQL text or any database.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use crate::model::conflict::Conflict;
use crate::model::schema_error::SchemaError;
use crate::model::table_name::TableName;
use crate::model::value::ColumnType;

/// One declared column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    name: Box<str>,
    ty: ColumnType,
    nullable: bool,
}

impl Column {
    /// The column's name, unquoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The declared type.
    pub fn column_type(&self) -> ColumnType {
        self.ty
    }

    /// Whether `NULL` is accepted, and whether a dynamic row may leave the column out.
    pub fn is_nullable(&self) -> bool {
        self.nullable
    }
}

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
}

struct Inner {
    id: SchemaId,
    content: Content,
    /// `namespace.table`, stored because every metric and log line needs it.
    display: Box<str>,
    key: Box<[usize]>,
    update: Box<[usize]>,
    fixed_len: usize,
    /// Projections created for rows that leave columns out, by the set of present columns.
    projections: Mutex<HashMap<Box<[bool]>, Weak<Inner>>>,
}

impl Schema {
    /// Starts a schema for `table`.
    pub fn builder(table: impl Into<TableName>) -> SchemaBuilder {
        SchemaBuilder { table: table.into(), columns: Vec::new(), conflict: Conflict::None }
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

    /// Indexes of the key columns, empty for [`Conflict::None`].
    pub fn key_columns(&self) -> &[usize] {
        &self.0.key
    }

    /// Indexes of the columns that a conflict overwrites; empty for `None`, `Ignore` and tables
    /// whose columns are all part of the key.
    pub fn update_columns(&self) -> &[usize] {
        &self.0.update
    }

    /// The index of a column by name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name() == name)
    }

    /// Bytes that every row takes in a batch before its variable parts.
    pub fn fixed_row_len(&self) -> usize {
        self.0.fixed_len
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
        let conflict = match &content.conflict {
            Conflict::Update { key, columns: Some(update) } => Conflict::Update {
                key: key.clone(),
                columns: Some(
                    update.iter().filter(|name| columns.iter().any(|c| *c.name == ***name)).cloned().collect(),
                ),
            },
            other => other.clone(),
        };
        let schema = intern(Content { table: content.table.clone(), columns: columns.into(), conflict })?;
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
        let Content { table, columns, conflict } = &self.0.content;
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

    /// Sets the conflict rule; the default is [`Conflict::None`].
    pub fn on_conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// Checks everything and interns the schema.
    ///
    /// # Errors
    /// No columns, an empty or repeated column name, an empty table name, a name with a NUL
    /// character, or a conflict rule that names an unknown, repeated or nullable key column.
    pub fn build(self) -> Result<Schema, SchemaError> {
        intern(Content { table: self.table, columns: self.columns.into(), conflict: self.conflict })
    }

    fn push(mut self, name: Box<str>, ty: ColumnType, nullable: bool) -> Self {
        self.columns.push(Column { name, ty, nullable });
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
    let (key, update) = check(&content)?;
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
        fixed_len: content.columns.iter().map(|c| c.ty.fixed_len() + usize::from(c.nullable)).sum(),
        key,
        update,
        content: content.clone(),
        projections: Mutex::default(),
    });
    interner.known.insert(content, Arc::downgrade(&inner));
    Ok(Schema(inner))
}

/// Checks a schema's content and resolves its key and update columns to indexes.
#[allow(clippy::type_complexity)]
fn check(content: &Content) -> Result<(Box<[usize]>, Box<[usize]>), SchemaError> {
    let table = &content.table;
    let error = |problem: String| Err(SchemaError::new(table, problem));
    if table.name().is_empty() || table.namespace() == Some("") {
        return error("the table name is empty; give the name of an existing table".into());
    }
    if content.columns.is_empty() {
        return error("it has no columns; add at least one with .column(name, type)".into());
    }
    let all_names = content.columns.iter().map(|c| &*c.name).chain([table.name()]).chain(table.namespace());
    if all_names.clone().any(|name| name.contains('\0')) {
        return error("a name contains a NUL character, which no database accepts".into());
    }
    for (index, column) in content.columns.iter().enumerate() {
        if column.name.is_empty() {
            return error(format!("column {} has an empty name", index + 1));
        }
        if content.columns[..index].iter().any(|earlier| earlier.name == column.name) {
            return error(format!("column {:?} is declared twice", column.name));
        }
    }
    let resolve = |names: &[String], role: &str| -> Result<Box<[usize]>, SchemaError> {
        let mut indexes = Vec::with_capacity(names.len());
        for name in names {
            let index = content.columns.iter().position(|c| *c.name == **name).ok_or_else(|| {
                SchemaError::new(table, format!("the {role} column {name:?} is not a declared column"))
            })?;
            if indexes.contains(&index) {
                return Err(SchemaError::new(table, format!("the {role} column {name:?} is named twice")));
            }
            indexes.push(index);
        }
        Ok(indexes.into())
    };
    let key = resolve(content.conflict.key(), "key")?;
    if content.conflict != Conflict::None && key.is_empty() {
        return error("the conflict rule names no key column; name the columns of a unique index".into());
    }
    if let Some(nullable) = key.iter().map(|i| &content.columns[*i]).find(|c| c.nullable) {
        return error(format!(
            "the key column {:?} is nullable; NULL keys never conflict, so declare it with .column()",
            nullable.name
        ));
    }
    let update = match &content.conflict {
        Conflict::None | Conflict::Ignore { .. } => Box::default(),
        Conflict::Update { columns: Some(columns), .. } => {
            let update = resolve(columns, "update")?;
            if let Some(both) = update.iter().find(|i| key.contains(i)) {
                let name = &content.columns[*both].name;
                return error(format!("the column {name:?} is both a key and an update column"));
            }
            update
        }
        Conflict::Replace { .. } | Conflict::Update { columns: None, .. } => {
            (0..content.columns.len()).filter(|index| !key.contains(index)).collect()
        }
    };
    Ok((key, update))
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
    }
}
