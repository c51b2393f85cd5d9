//! Owns what generated code needs: the columns of a struct, and the schemas of a row type, by the columns that a row has.
//! Must not know attributes, or how rows are submitted.
//!
//! [`Declared`], [`Declarations`] and [`Shapes`] are for the macros of `batchsql-derive`, and not part of the public
//! interface: any release may change them.

use std::sync::OnceLock;

use crate::model::conflict::{Action, Conflict};
use crate::model::expr::Expr;
use crate::model::rules::{is_number, is_ordered};
use crate::model::schema::Schema;
use crate::model::schema_error::SchemaError;
use crate::model::table_name::TableName;
use crate::model::value::ColumnType;
use crate::row::encode::Encode;
use crate::row::error::RowError;
use crate::row::key::KeyHasher;
use crate::row::writer::RowWriter;

/// The columns of a struct. `#[derive(Row)]` implements it for rows, and `#[derive(RowColumns)]` for structs that are only
/// a part of rows; `#[row(flatten)]` on a field inlines the columns of its type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no columns that could be inlined",
    note = "add #[derive(RowColumns)] to the struct, or remove #[row(flatten)] from the field"
)]
pub trait RowColumns {
    /// How many columns there are.
    const COLUMNS: usize;
    /// How many of them a row may leave out: at most 63.
    const OPTIONAL: u32;

    /// Declares the columns in their order.
    #[doc(hidden)]
    fn declare_columns(list: &mut Declarations);

    /// The optional columns that this value leaves out: one bit for each, in their order.
    #[doc(hidden)]
    fn absent_columns(&self) -> u64;

    /// Bytes of the variable parts of the columns that are written.
    #[doc(hidden)]
    fn columns_variable_len(&self) -> usize;

    /// Feeds a key column to a hash; false if there is no such column.
    #[doc(hidden)]
    fn hash_column(&self, name: &str, hasher: &mut KeyHasher) -> bool;

    /// Writes the columns that are not left out.
    #[doc(hidden)]
    fn write_columns(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError>;
}

/// Collects the columns of a row type.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Declarations {
    columns: Vec<(&'static str, ColumnType, bool)>,
    /// Indexes of the columns that a row may leave out.
    optional: Vec<usize>,
    /// What an update does with columns, by their names.
    expressions: Vec<(&'static str, Expr)>,
    overrides_identity: bool,
    /// Columns whose values the database returns.
    returning: Vec<(&'static str, ColumnType)>,
}

impl Declarations {
    /// A field that is a column.
    pub fn column<T: Encode + ?Sized>(&mut self, name: &'static str) {
        self.columns.push((name, T::TYPE, T::NULLABLE));
    }

    /// A field that a function converts to a column.
    pub fn column_with<'a, T, V, F>(&mut self, name: &'static str, _: F)
    where
        T: ?Sized + 'a,
        V: Encode,
        F: FnOnce(&'a T) -> V,
    {
        self.column::<V>(name);
    }

    /// The column that was declared last may be left out.
    pub fn optional(&mut self) {
        self.optional.push(self.columns.len() - 1);
    }

    /// What an update does with the column that was declared last.
    pub fn set(&mut self, expr: Expr) {
        let (name, ..) = self.columns.last().expect("an expression follows its column");
        self.expressions.push((name, expr));
    }

    /// Checks a field whose column is added up, when the program is compiled.
    pub const fn added<T: Encode + ?Sized>() {
        check(is_number(T::TYPE), "#[row(add)] is for numbers: integers, floats and decimals");
    }

    /// As [`added`](Self::added), for a field that a function converts.
    pub const fn added_with<'a, T, V, F>(_: &F)
    where
        T: ?Sized + 'a,
        V: Encode,
        F: FnOnce(&'a T) -> V,
    {
        Self::added::<V>();
    }

    /// Checks a field whose column is compared, when the program is compiled.
    pub const fn compared<T: Encode + ?Sized>() {
        check(
            is_ordered(T::TYPE),
            "#[row(greatest)] and #[row(least)] are for numbers, dates and times: databases order other values differently",
        );
    }

    /// As [`compared`](Self::compared), for a field that a function converts.
    pub const fn compared_with<'a, T, V, F>(_: &F)
    where
        T: ?Sized + 'a,
        V: Encode,
        F: FnOnce(&'a T) -> V,
    {
        Self::compared::<V>();
    }

    /// Values of identity columns are written.
    pub fn overriding_system_value(&mut self) {
        self.overrides_identity = true;
    }

    /// A column whose value the database returns for each written row.
    pub fn returning<T: Encode + ?Sized>(&mut self, name: &'static str) {
        self.returning.push((name, T::TYPE));
    }

    /// The schema of rows with all columns.
    ///
    /// # Panics
    /// When the declaration is invalid: a column is declared twice, the key is no column or may be left out, all columns
    /// may be left out, the rule does not fit the columns, or it needs a column that may be left out.
    pub fn build(self, table: TableName, mut conflict: Conflict) -> Declared {
        // Columns of one struct are used with several rules; a rule that updates nothing has no use for expressions.
        if !matches!(conflict.action(), Action::Insert | Action::Ignore) {
            conflict = self.expressions.into_iter().fold(conflict, |rule, (name, expr)| rule.set(name, expr));
        }
        let mut builder = Schema::builder(table).on_conflict(conflict);
        if self.overrides_identity {
            builder = builder.overriding_system_value();
        }
        for (name, ty) in self.returning {
            builder = builder.returning(name, ty);
        }
        for (name, ty, is_nullable) in self.columns {
            builder = if is_nullable { builder.nullable(name, ty) } else { builder.column(name, ty) };
        }
        let schema = builder.build().unwrap_or_else(|error| panic!("{error}"));
        let keys = schema.key_columns();
        if let Some(key) = self.optional.iter().find(|index| keys.contains(index)) {
            let column = schema.columns()[*key].name();
            panic!("schema of table {:?}: the key column {column:?} may not be left out", schema.table_display());
        }
        let table = schema.table_display();
        assert!(
            self.optional.len() < schema.columns().len(),
            "schema of table {table:?}: at least one column must always be written"
        );
        let declared = Declared { schema, optional: self.optional.into() };
        // Columns that a rule needs are needed one by one, so the smallest row shows whether one may be left out.
        if let Err(error) = declared.project(u64::MAX) {
            panic!("{error}; rows that leave out every column with default or skip_none must be valid too");
        }
        declared
    }
}

/// As `assert!`, which shows a place in the standard library too. The compiler has the text of that place only if the sources of
/// the standard library are installed.
#[track_caller]
const fn check(holds: bool, mistake: &str) {
    let checked = if holds { Some(()) } else { None };
    checked.expect(mistake);
}

/// The schema of a row type, and the columns that its rows may leave out.
#[doc(hidden)]
#[derive(Debug)]
pub struct Declared {
    schema: Schema,
    optional: Box<[usize]>,
}

/// The schemas of a row type. A static of the generated code.
///
/// A static in a generic function is one for all types, so it has a list of them. A type is known by the address of its
/// declaring function. The compiler may give two functions one address only if they do the same, and then their schemas
/// are equal; a function with two addresses only makes its schema twice.
///
/// A schema that is in the list is found without a lock and without an allocation. The list only grows: a type has one
/// schema for each set of columns that one of its rows left out.
#[doc(hidden)]
#[derive(Debug)]
pub struct Shapes {
    first: OnceLock<Box<TypeShapes>>,
}

#[derive(Debug)]
struct TypeShapes {
    declare: usize,
    full: Declared,
    /// Lists by the set of absent columns, so that types with many sets are found quickly too.
    lists: [OnceLock<Box<Shape>>; Self::LISTS],
    next: OnceLock<Box<TypeShapes>>,
}

#[derive(Debug)]
struct Shape {
    absent: u64,
    schema: Schema,
    next: OnceLock<Box<Shape>>,
}

impl Default for Shapes {
    fn default() -> Self {
        Self::new()
    }
}

impl Shapes {
    /// Without any schema.
    pub const fn new() -> Self {
        Self { first: OnceLock::new() }
    }

    /// The schema of rows with all columns.
    #[inline]
    pub fn full(&self, declare: fn() -> Declared) -> &Schema {
        &self.of_type(declare).full.schema
    }

    /// The schema of rows that leave out these optional columns.
    #[inline]
    pub fn without(&self, declare: fn() -> Declared, absent: u64) -> &Schema {
        let shapes = self.of_type(declare);
        if absent == 0 { &shapes.full.schema } else { shapes.without(absent) }
    }

    #[inline]
    fn of_type(&self, declare: fn() -> Declared) -> &TypeShapes {
        let address = declare as usize;
        let mut slot = &self.first;
        loop {
            let shapes = slot.get_or_init(|| Box::new(TypeShapes::new(address, declare())));
            if shapes.declare == address {
                return shapes;
            }
            slot = &shapes.next;
        }
    }
}

impl TypeShapes {
    const LISTS: usize = 16;

    fn new(declare: usize, full: Declared) -> Self {
        Self { declare, full, lists: Default::default(), next: OnceLock::new() }
    }

    fn without(&self, absent: u64) -> &Schema {
        // The high bits of a product depend on all bits of its factor.
        let list = absent.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60;
        let mut slot = &self.lists[list as usize % Self::LISTS];
        loop {
            let shape = slot
                .get_or_init(|| Box::new(Shape { absent, schema: self.full.without(absent), next: OnceLock::new() }));
            if shape.absent == absent {
                return &shape.schema;
            }
            slot = &shape.next;
        }
    }
}

impl Declared {
    fn without(&self, absent: u64) -> Schema {
        self.project(absent).expect("the smallest row was checked when the schema was declared")
    }

    fn project(&self, absent: u64) -> Result<Schema, SchemaError> {
        let mut present = vec![true; self.schema.columns().len()];
        for (bit, index) in self.optional.iter().enumerate() {
            present[*index] = absent >> bit & 1 == 0;
        }
        self.schema.project(&present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(table: &'static str) -> Declared {
        let mut list = Declarations::default();
        list.column::<i64>("id");
        list.column::<Option<i64>>("a");
        list.optional();
        list.column::<Option<String>>("b");
        list.optional();
        list.build(TableName::new(table), Conflict::update(["id"]))
    }

    fn names(schema: &Schema) -> Vec<&str> {
        schema.columns().iter().map(|column| column.name()).collect()
    }

    #[test]
    fn each_set_of_columns_has_one_schema_and_each_type_its_own() {
        static SHAPES: Shapes = Shapes::new();
        let one: fn() -> Declared = || declared("one");
        let two: fn() -> Declared = || declared("two");
        for _ in 0..2 {
            assert_eq!(names(SHAPES.full(one)), ["id", "a", "b"]);
            assert_eq!(names(SHAPES.without(one, 0b01)), ["id", "b"]);
            assert_eq!(names(SHAPES.without(one, 0b10)), ["id", "a"]);
            assert_eq!(names(SHAPES.without(one, 0b11)), ["id"]);
            assert_eq!(SHAPES.without(two, 0b11).table_display(), "two");
        }
        assert_eq!(SHAPES.without(one, 0), SHAPES.full(one));
        assert!(std::ptr::eq(SHAPES.without(one, 1), SHAPES.without(one, 1)), "it is made once");
    }

    #[test]
    #[should_panic(expected = "at least one column must always be written")]
    fn not_all_columns_are_left_out() {
        let mut list = Declarations::default();
        list.column::<i64>("id");
        list.optional();
        list.build(TableName::new("t"), Conflict::none());
    }

    #[test]
    #[should_panic(expected = "the key column \"id\" may not be left out")]
    fn a_key_is_never_left_out() {
        let mut list = Declarations::default();
        list.column::<i64>("id");
        list.optional();
        list.build(TableName::new("t"), Conflict::update(["id"]));
    }
}
